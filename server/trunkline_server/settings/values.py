"""Readers of single values: each turns a node into a value or says what to write instead."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from trunkline_server.settings.problems import InvalidValueError, Problem, suggestion
from trunkline_server.settings.secrets import (
    Secret,
    is_managed,
    is_reference,
    managed_secret,
    resolve_secret,
    secret_path,
)
from trunkline_server.settings.yaml_source import Node

T = TypeVar("T")

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}\Z")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?\Z")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)\Z")
_SIZE = re.compile(r"([0-9]+)\s*(B|KiB|MiB|GiB|kB|KB|MB|GB)\Z")
# A name of at least two labels: "*.com" would be anybody.
_HOST = re.compile(r"(?:\*\.)?(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z][a-z0-9-]*", re.ASCII)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_HEADER_VALUE = re.compile(r"(?:[!-~](?:[ \t!-~]*[!-~])?)?\Z")
_HASH = re.compile(r"sha256:[0-9a-fA-F]{64}\Z")

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_KIND_NAMES = {"map": "a map", "list": "a list", "null": "nothing"}

HASH_COMMAND = "trunkline hash-key"


@dataclass(slots=True)
class Context:
    """What readers need beside the node; `problems` and `files` grow as they read."""

    env: Mapping[str, str]
    base: Path
    problems: list[Problem] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    # Shell patterns of what stored resources may refer to.
    references: Sequence[str] = ()

    def report(self, node: Node, message: str) -> None:
        """Notes a problem at a node."""
        self.problems.append(Problem(node.line, node.path, message))


Reader = Callable[[Node, Context], T]


def _scalar(node: Node, wanted: str) -> str:
    if node.kind in _KIND_NAMES:
        raise InvalidValueError(f"is {_KIND_NAMES[node.kind]}; write {wanted}")
    return node.text


def text(node: Node, _context: Context) -> str:
    """Text that is not empty."""
    value = _scalar(node, "text")
    if node.kind != "text":
        raise InvalidValueError(f'reads as a {_plain_kind(node)}; write it in quotes: "{value}"')
    if not value.strip():
        raise InvalidValueError("is empty")
    return value


def text_or_empty(node: Node, context: Context) -> str:
    """Text, possibly empty."""
    return "" if node.kind == "text" and not node.text else text(node, context)


def boolean(node: Node, _context: Context) -> bool:
    if node.kind != "bool":
        raise InvalidValueError("write true or false")
    return node.text.lower() in {"true", "yes", "on"}


def integer(least: int, most: int = 2**53) -> Reader[int]:
    """A whole number within bounds."""

    def read(node: Node, _context: Context) -> int:
        value = _scalar(node, "a whole number")
        if node.kind != "number" or not _INTEGER.match(value):
            raise InvalidValueError("write a whole number, without quotes or a unit")
        return _bounded(int(value), least, most)

    return read


def number(least: float, most: float = 1e12) -> Reader[float]:
    """A number within bounds."""

    def read(node: Node, _context: Context) -> float:
        value = _scalar(node, "a number")
        if node.kind not in {"number", "text"} or not _NUMBER.match(value):
            raise InvalidValueError("write a number")
        return _bounded(float(value), least, most)

    return read


def duration(least: float, most: float = 366 * 86_400.0) -> Reader[float]:
    """A time span, in seconds: a number of seconds or a text such as 250ms, 5s, 2m, 1h."""

    def read(node: Node, _context: Context) -> float:
        value = _scalar(node, "a duration such as 250ms, 5s or 2m")
        match = _DURATION.match(value)
        if match:
            return _bounded(float(match[1]) * _SECONDS[match[2]], least, most, " s")
        if node.kind == "number" and _NUMBER.match(value):
            return _bounded(float(value), least, most, " s")
        if _NUMBER.match(value):
            raise InvalidValueError(f"has no unit; write {value}s, or {value} without quotes")
        raise InvalidValueError("write a duration such as 250ms, 5s, 2m or 1h")

    return read


def size(least: int, most: int = 2**31 - 1) -> Reader[int]:
    """A size in bytes: a whole number of bytes or a text such as 32MiB."""

    def read(node: Node, _context: Context) -> int:
        value = _scalar(node, "a size such as 32MiB")
        match = _SIZE.match(value)
        if match and match[2] in _BYTES:
            return _bounded(int(match[1]) * _BYTES[match[2]], least, most, " bytes")
        if match:
            binary = f"{match[1]}{match[2][0].upper()}iB"
            raise InvalidValueError(f"is in powers of ten; write powers of two, such as {binary}")
        if node.kind == "number" and _INTEGER.match(value):
            return _bounded(int(value), least, most, " bytes")
        raise InvalidValueError("write a size such as 16KiB or 32MiB")

    return read


def dollars(node: Node, _context: Context) -> Decimal:
    """An exact amount of US dollars, zero or more."""
    value = _scalar(node, 'an amount in USD, such as "1.25"')
    if not _NUMBER.match(value):
        raise InvalidValueError('write an amount in USD, such as "1.25"')
    amount = Decimal(value)
    exponent = amount.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -18:
        raise InvalidValueError("has more than 18 decimal places")
    return _bounded(amount, Decimal(0), Decimal(10**9))


def dollars_by_name(node: Node, context: Context) -> tuple[tuple[str, Decimal], ...]:
    """Amounts as `dollars` reads them, by names."""
    if node.kind != "map":
        raise InvalidValueError('write a map of names and amounts in USD, such as "0.04"')
    amounts = []
    for name, value in node.entries.items():
        try:
            amounts.append((name, dollars(value, context)))
        except InvalidValueError as error:
            context.report(value, str(error))
    return tuple(amounts)


def choice(*names: str) -> Reader[str]:
    """One of some words."""

    def read(node: Node, _context: Context) -> str:
        value = _scalar(node, f"one of {', '.join(names)}")
        if value not in names:
            hint = suggestion(value, names)
            raise InvalidValueError(f"is {value!r}, not one of {', '.join(names)}{hint}")
        return value

    return read


def texts(node: Node, context: Context) -> tuple[str, ...]:
    """A list of texts, not empty, each once; a single text stands for a list of one."""
    if node.kind != "list":
        return (text(node, context),)
    if not node.items:
        raise InvalidValueError("is an empty list; name at least one, or leave the key out")
    values = []
    for item in node.items:
        try:
            values.append(text(item, context))
        except InvalidValueError as error:
            context.report(item, str(error))
            values.append("")  # Keeps the places of the others.
    for value in sorted({value for value in values if value and values.count(value) > 1}):
        context.report(node, f"names {value!r} twice")
    return tuple(values)


def words(node: Node, context: Context) -> tuple[str, ...]:
    """A list as `texts`, in lower case."""
    return tuple(value.lower() for value in texts(node, context))


def hosts(node: Node, context: Context) -> tuple[str, ...]:
    """Names of hosts, in lower case; one that begins with "*." stands for all below it."""
    found = words(node, context)
    for value in found:
        if value and not _HOST.fullmatch(value):
            context.report(node, f"{value!r} is no host such as example.com or *.example.com")
    return found


def choices(*names: str) -> Reader[tuple[str, ...]]:
    """A list of some words, possibly empty."""

    def read(node: Node, context: Context) -> tuple[str, ...]:
        found = () if node.kind == "list" and not node.items else texts(node, context)
        for value in found:
            if value not in names:
                hint = suggestion(value, names)
                context.report(node, f"{value!r} is not one of {', '.join(names)}{hint}")
        return found

    return read


def address(node: Node, context: Context) -> str:
    """HOST:PORT; an IPv6 host stands in brackets."""
    value = text(node, context)
    host, _, port = value.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidValueError(f"is {value!r}; write HOST:PORT, such as 127.0.0.1:50051")
    if ":" in bare and not host.startswith("["):
        raise InvalidValueError(f"write an IPv6 address in brackets: [{bare}]:{port}")
    return value


def address_or_off(node: Node, context: Context) -> str:
    """HOST:PORT, or `off`, which is the empty text."""
    if (node.kind == "bool" and not boolean(node, context)) or node.text in {"off", ""}:
        return ""
    return address(node, context)


def base_url(node: Node, context: Context) -> str:
    """An http or https URL without a trailing slash, query or user."""
    value = text(node, context)
    try:
        parts = urlsplit(value)
        valid = parts.scheme in {"http", "https"} and parts.hostname and (parts.port or 1)
    except ValueError:
        valid = False
    if not valid or not value.isascii() or any(letter.isspace() for letter in value):
        raise InvalidValueError("write a URL such as https://api.example.com/v1")
    if parts.username is not None or parts.password is not None:
        raise InvalidValueError("holds a user or password; write the credentials as api_key")
    if parts.query or parts.fragment:
        raise InvalidValueError("has a query or fragment; a base URL ends with its path")
    return value.rstrip("/")


def secret(node: Node, context: Context) -> Secret:
    """A reference to a secret, resolved."""
    value = _scalar(node, "env:NAME or file:PATH")
    if node.kind != "text" or not is_reference(value):
        raise InvalidValueError(
            "is not a reference to a secret; secrets do not stand in this file: "
            "write env:NAME or file:PATH"
        )
    check_permitted(node, value, context)
    if value.startswith("file:"):
        context.files.append(secret_path(value, context.base))
    return resolve_secret(value, context.env, context.base)


def provider_secret(node: Node, context: Context) -> Secret:
    """A reference to a secret that is shown to a provider; its value may be still to be fetched."""
    value = _scalar(node, "a reference such as env:NAME, file:PATH or vault:mount/path#field")
    if node.kind == "text" and is_managed(value):
        check_permitted(node, value, context)
        return managed_secret(value)
    return secret(node, context)


def check_permitted(node: Node, reference: str, context: Context) -> None:
    """Raises InvalidValueError where a stored resource refers to what it may not."""
    # What stands in no line comes from the store, whose writers need not be this file's.
    if not node.line and not any(fnmatchcase(reference, one) for one in context.references):
        raise InvalidValueError("refers to what state.references does not permit")


def dsn(node: Node, context: Context) -> Secret:
    """A database's address: a reference to one, or the address itself if it holds no password.

    The path of a SQLite file starts at the configuration.
    """
    value = _scalar(node, "sqlite:///FILE, or env:NAME for another database's address")
    if is_reference(value):
        return secret(node, context)
    if urlsplit(value).password:
        raise InvalidValueError("holds a password, which does not stand in this file: use env:NAME")
    path = value.removeprefix("sqlite:///")
    if path != value and not path.startswith("/"):
        value = f"sqlite:///{(context.base / path).absolute()}"
    return Secret(value, value)


def folder(node: Node, context: Context) -> Path:
    """The path of a folder, which need not exist; a relative path starts at the configuration."""
    return (context.base / Path(text(node, context)).expanduser()).absolute()


def header_name(node: Node, context: Context) -> str:
    """The name of an HTTP header, in lower case."""
    value = text(node, context)
    if not _HEADER_NAME.match(value):
        raise InvalidValueError("is not the name of an HTTP header")
    return value.lower()


def header_values(node: Node, context: Context) -> dict[str, str | Secret]:
    """HTTP headers by name in lower case; values may be references to secrets."""
    return _headers(node, context, secret)


def provider_headers(node: Node, context: Context) -> dict[str, str | Secret]:
    """The same for a provider, whose secrets may be still to be fetched."""
    return _headers(node, context, provider_secret)


def _headers(node: Node, context: Context, hidden: "Reader[Secret]") -> dict[str, str | Secret]:
    if node.kind != "map":
        raise InvalidValueError("write a map of header names and values")
    headers: dict[str, str | Secret] = {}
    for name, value in node.entries.items():
        try:
            if not _HEADER_NAME.match(name):
                raise InvalidValueError("is not the name of an HTTP header")
            if is_reference(value.text) or _is_credential(name):
                headers[name.lower()] = hidden(value, context)
                continue
            plain = _scalar(value, "text")
            if not _HEADER_VALUE.match(plain):
                raise InvalidValueError("holds characters that no header may hold")
            headers[name.lower()] = plain
        except InvalidValueError as error:
            context.report(value, str(error))
    return headers


def plain_headers(node: Node, context: Context) -> dict[str, str]:
    """HTTP headers by name in lower case, none of them secret."""
    return {
        name: value
        for name, value in header_values(node, context).items()
        if not isinstance(value, Secret)
    }


def open_headers(node: Node, context: Context) -> dict[str, str]:
    """The same where secrets have no place."""
    for name, value in node.entries.items() if node.kind == "map" else ():
        if is_reference(value.text) or _is_credential(name):
            context.report(value, "holds a secret; put it among the headers of the provider")
            return {}
    return plain_headers(node, context)


def _is_credential(header: str) -> bool:
    name = header.lower()
    return "authorization" in name or name.endswith(("key", "token", "secret", "cookie"))


def flags(node: Node, context: Context) -> dict[str, str | int | bool]:
    """A map of words to texts, whole numbers or booleans."""
    if node.kind != "map":
        raise InvalidValueError("write a map of flags and values")
    found: dict[str, str | int | bool] = {}
    for name, value in node.entries.items():
        if value.kind == "bool":
            found[name] = boolean(value, context)
        elif value.kind == "number" and _INTEGER.match(value.text):
            found[name] = int(value.text)
        elif value.kind == "text":
            found[name] = value.text
        else:
            context.report(value, "write text, a whole number, true or false")
    return found


def key_hash(node: Node, _context: Context) -> bytes:
    """The digest in `sha256:` and 64 hexadecimal digits."""
    if not _HASH.match(node.text):
        # It may be the key itself, so it is not quoted.
        raise InvalidValueError(
            f"is not sha256: and 64 hexadecimal digits; make the hash with: {HASH_COMMAND}"
        )
    return bytes.fromhex(node.text.removeprefix("sha256:"))


def moment(node: Node, _context: Context) -> float:
    """A date or a time in ISO 8601, UTC unless it names a zone, as Unix seconds."""
    value = _scalar(node, "a date such as 2027-01-31")
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        raise InvalidValueError(
            "write a date or time such as 2027-01-31 or 2027-01-31T12:00:00Z"
        ) from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def readable_file(node: Node, context: Context) -> Path:
    """The path of a file that can be read; a relative path starts at the configuration."""
    path = context.base / Path(text(node, context)).expanduser()
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InvalidValueError(f"the file {path} cannot be read: {reason}") from None
    context.files.append(path)
    return path


Number = TypeVar("Number", int, float, Decimal)


def _bounded(value: Number, least: Number, most: Number, unit: str = "") -> Number:
    if value < least:
        wanted = "must not be negative" if not least else f"must be at least {least:g}{unit}"
        raise InvalidValueError(wanted)
    if value > most:
        raise InvalidValueError(f"must be at most {most:g}{unit}")
    return value


def _plain_kind(node: Node) -> str:
    return "boolean" if node.kind == "bool" else node.kind
