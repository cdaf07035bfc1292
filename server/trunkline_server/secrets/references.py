"""References: how a configuration names a secret without telling it."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from trunkline_server.secrets.ports import (
    SecretError,
    SecretRefusedError,
    SecretSource,
    SecretValue,
)

SCHEMES = ("vault", "aws", "azure", "gcp")


@dataclass(frozen=True, slots=True)
class Reference:
    """`scheme:path#field`; the field is empty where none is named."""

    text: str
    scheme: str
    path: str
    field: str

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Raises SecretRefusedError, which does not quote what is no reference: it may be the
        secret itself."""
        scheme, colon, rest = text.partition(":")
        if not colon or scheme not in SCHEMES:
            raise SecretRefusedError(
                f"is not a reference to a secret; they begin with {', '.join(SCHEMES)} and a colon"
            )
        path, _, field = rest.partition("#")
        if not path:
            raise SecretRefusedError(f"the reference {scheme}: names nothing")
        return cls(text, scheme, path, field)


class Sources:
    """All sources, as one: each reference goes to the source of its scheme."""

    def __init__(self, sources: Mapping[str, SecretSource]) -> None:
        """`sources` by scheme."""
        self._sources = dict(sources)

    async def fetch(self, reference: str) -> SecretValue:
        """As SecretSource.fetch."""
        scheme = Reference.parse(reference).scheme
        source = self._sources.get(scheme)
        if source is None:
            raise SecretRefusedError(f"{reference}: no source for {scheme}: is configured")
        return await source.fetch(reference)


def pick_field(reference: Reference, text: str) -> str:
    """The field of a secret that is a JSON object, or the whole text if none is named."""
    if not reference.field:
        return text
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError:
        fields = None
    if not isinstance(fields, dict):
        raise SecretRefusedError(f"{reference.text}: the secret is no JSON object")
    return pick(reference, fields)


def pick(reference: Reference, fields: Mapping[str, Any]) -> str:
    """One field of a secret as text. Without a named field, the only one or `value`."""
    name = reference.field
    if not name:
        name = next(iter(fields)) if len(fields) == 1 else "value"
    value = fields.get(name)
    if isinstance(value, str):
        return value
    if value is None:
        raise SecretRefusedError(f"{reference.text}: the secret has no field {name!r}")
    raise SecretRefusedError(f"{reference.text}: the field {name!r} is no text")


def vendor_module(module: str, extra: str) -> Any:
    """A vendor's client library, imported when it is first needed.

    Raises SecretError that names the extra to install where the library is absent.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise SecretError(
            f"{extra} references need the package {error.name or module}; install"
            f" trunkline-server[{extra}]"
        ) from None
