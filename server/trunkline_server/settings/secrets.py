"""Secrets, and the references by which a configuration names them."""

import re
from collections.abc import Mapping
from pathlib import Path

from trunkline_server.settings.problems import InvalidValueError

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# What can stand in an HTTP header: visible ASCII, spaces and tabs within.
_HEADER_SAFE = re.compile(r"[!-~](?:[ \t!-~]*[!-~])?\Z")
_MAX_BYTES = 64 * 1024


# Where a value is fetched from once the configuration has been read; how each is written.
MANAGED = {
    "vault": "vault:mount/path#field",
    "aws": "aws:name-or-arn#field",
    "azure": "azure:vault/name#field",
    "gcp": "gcp:projects/P/secrets/S/versions/latest#field",
    "credential": "credential:NAME",
}
_SHAPES = {
    "vault": re.compile(r"[^/#\s]+/[^#\s]+(?:#\S+)?\Z"),
    "aws": re.compile(r"[^#\s]+(?:#\S+)?\Z"),
    "azure": re.compile(r"[A-Za-z0-9-]+/[A-Za-z0-9-]+(?:/[A-Za-z0-9]+)?(?:#\S+)?\Z"),
    "gcp": re.compile(
        r"projects/[^/#\s]+/(?:locations/[^/#\s]+/)?secrets/[^/#\s]+/versions/[^/#\s]+(?:#\S+)?\Z"
    ),
    "credential": re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}\Z"),
}


class Secret:
    """A value that must not be shown, and the reference it came from, which may be.

    The value is None while it is still to be fetched. Its repr and str hide the value. Equal
    secrets have equal values and references.
    """

    __slots__ = ("_value", "reference")

    def __init__(self, value: str | None, reference: str) -> None:
        self._value = value
        self.reference = reference

    @property
    def managed(self) -> bool:
        """Whether the value is not here, but where the reference says."""
        return self._value is None

    def reveal(self) -> str:
        """The value itself."""
        if self._value is None:
            raise AssertionError(f"{self.reference} is fetched, not read from the configuration")
        return self._value

    def __repr__(self) -> str:
        return f"Secret({self.reference})"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Secret)
            and self._value == other._value
            and self.reference == other.reference
        )

    def __hash__(self) -> int:
        return hash((self._value, self.reference))

    def __reduce__(self) -> str:
        raise TypeError("a secret is not to be pickled")


def is_reference(text: str) -> bool:
    """Whether a text refers to a secret."""
    return text.startswith(("env:", "file:")) or is_managed(text)


def is_managed(text: str) -> bool:
    """Whether a text refers to a secret that has to be fetched."""
    scheme, colon, _ = text.partition(":")
    return bool(colon) and scheme in MANAGED


def managed_secret(reference: str) -> Secret:
    """The secret that a reference to a secret manager names, its value still to be fetched.

    Raises InvalidValueError.
    """
    scheme, _, rest = reference.partition(":")
    if not _SHAPES[scheme].match(rest):
        raise InvalidValueError(f"is no such reference; write {MANAGED[scheme]}")
    return Secret(None, reference)


def managed_reference(text: str) -> str:
    """A reference into a secret manager. Raises InvalidValueError, which does not quote it."""
    if not is_managed(text) or text.startswith("credential:"):
        raise InvalidValueError(
            "is no reference into a secret manager; write such as "
            + ", ".join(shape for scheme, shape in MANAGED.items() if scheme != "credential")
        )
    return managed_secret(text).reference


def is_credential_name(text: str) -> bool:
    """Whether a stored credential may be called so."""
    return _SHAPES["credential"].match(text) is not None


def is_header_safe(text: str) -> bool:
    """Whether a text can stand in an HTTP header."""
    return _HEADER_SAFE.match(text) is not None


def resolve_secret(
    reference: str, env: Mapping[str, str], base: Path, *, header: bool = True
) -> Secret:
    """The secret that `env:NAME` or `file:PATH` names; a relative path starts at `base`. It must
    be fit for a header unless `header` is False.

    Raises InvalidValueError, which never quotes a value: not what stands in place of a
    reference, which may be the secret itself, and not what a file or a variable holds.
    """
    kind, _, name = reference.partition(":")
    if kind == "env" and _VARIABLE.match(name):
        if name not in env:
            raise InvalidValueError(f"the environment variable {name} is not set; export {name}")
        value = env[name]
        what = f"the environment variable {name}"
    elif kind == "file" and name:
        value = _read(secret_path(reference, base))
        what = f"the file {name}"
    elif is_managed(reference):
        raise InvalidValueError(
            "is kept in a secret manager, which holds for providers' keys alone; "
            "write env:NAME or file:PATH"
        )
    else:
        raise InvalidValueError("is not a reference to a secret; write env:NAME or file:PATH")
    value = value.strip()
    if not value:
        raise InvalidValueError(f"{what} is empty")
    if header and not is_header_safe(value):
        raise InvalidValueError(f"{what} holds characters that no header may hold")
    return Secret(value, reference)


def secret_path(reference: str, base: Path) -> Path:
    """The file that a `file:` reference names."""
    return base / Path(reference.removeprefix("file:")).expanduser()


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise InvalidValueError(f"the file {path} is larger than 64 KiB")
        return data.decode()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InvalidValueError(f"the file {path} cannot be read: {reason}") from None
    except UnicodeDecodeError:
        raise InvalidValueError(f"the file {path} is not UTF-8 text") from None
