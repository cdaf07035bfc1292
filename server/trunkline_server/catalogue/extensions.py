"""Dialects and catalogue rows of installed packages, found by their entry points.

Read once, when they are first asked for, which is at the start. Whatever is wrong with one ends
the start and names the distribution it came with: a router that silently lacks a dialect would
refuse its configuration for a reason that nobody finds.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import resources
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

from trunkline_server.catalogue.rows import ProviderRow, built_in_rows, read_rows
from trunkline_server.providers.api import API_VERSION
from trunkline_server.providers.codec import Codec
from trunkline_server.providers.dialects import DIALECTS
from trunkline_server.settings import ConfigError, Problem

# An entry point of the first group names a codec, or what makes one when it is called without
# arguments; its own name is the dialect's. One of the second names a package that holds a
# providers.yaml with rows like the catalogue's.
DIALECT_GROUP = "trunkline.dialects"
ROW_GROUP = "trunkline.providers"

_METHODS = (
    "decode_embed",
    "decode_error",
    "decode_generate",
    "encode_embed",
    "encode_generate",
    "stream_decoder",
)


@cache
def dialects() -> Mapping[str, Codec]:
    """Every dialect by name, those of packages too. Raises ConfigError."""
    return read_dialects(entry_points(group=DIALECT_GROUP))


@cache
def provider_rows() -> Mapping[str, ProviderRow]:
    """Every row by kind, those of packages too. Raises ConfigError."""
    return read_package_rows(entry_points(group=ROW_GROUP), dialects())


def read_dialects(points: Iterable[EntryPoint]) -> Mapping[str, Codec]:
    """The router's own dialects and those that the entry points name. Raises ConfigError."""
    found = dict(DIALECTS)
    owners = dict.fromkeys(DIALECTS, "the router")
    for point in _in_order(points):
        if point.name in found:
            raise _wrong(point, f"there is one of that name already, of {owners[point.name]}")
        found[point.name] = _codec(point)
        owners[point.name] = _origin(point)
    return found


def read_package_rows(
    points: Iterable[EntryPoint], known: Mapping[str, Codec]
) -> Mapping[str, ProviderRow]:
    """The catalogue's own rows and those that the entry points name. Raises ConfigError."""
    found = dict(built_in_rows())
    owners = dict.fromkeys(found, "the router")
    for point in _in_order(points):
        package = _loaded(point)
        if not isinstance(package, ModuleType):
            raise _wrong(point, "names no package that holds a providers.yaml")
        try:
            text = resources.files(package).joinpath("providers.yaml").read_text("utf-8")
        except (OSError, TypeError, UnicodeDecodeError) as error:
            raise _wrong(point, f"its providers.yaml cannot be read: {error}") from error
        for name, row in read_rows(text, f"providers.yaml of {_origin(point)}").items():
            if name in found:
                raise _wrong(point, f"its row {name!r} is one of {owners[name]} already")
            if row.dialect not in known:
                raise _wrong(point, f"its row {name!r} has an unknown dialect, {row.dialect!r}")
            found[name] = row
            owners[name] = _origin(point)
    return found


def _codec(point: EntryPoint) -> Codec:
    made = _loaded(point)
    if isinstance(made, type) or not hasattr(made, "dialect"):
        made = _guarded(point, made)
    lacking = [name for name in _METHODS if not callable(getattr(made, name, None))]
    if lacking:
        raise _wrong(point, f"is no codec: it lacks {', '.join(lacking)}")
    version = getattr(made, "api_version", None)
    if version != API_VERSION:
        told = "does not say its api_version" if version is None else f"has api_version {version!r}"
        raise _wrong(point, f"{told}; this router has {API_VERSION}")
    if made.dialect != point.name:
        raise _wrong(point, f"calls its dialect {made.dialect!r}")
    codec: Codec = made
    return codec


def _loaded(point: EntryPoint) -> Any:
    return _guarded(point, point.load)


def _guarded(point: EntryPoint, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Exception as error:
        # It is somebody else's code: whatever it raises is told with where it comes from.
        raise _wrong(point, f"cannot be loaded: {type(error).__name__}: {error}") from error


def _in_order(points: Iterable[EntryPoint]) -> list[EntryPoint]:
    """So that the same packages give the same error whatever order they are found in."""
    return sorted(points, key=lambda point: (point.name, _origin(point)))


def _origin(point: EntryPoint) -> str:
    distribution = point.dist
    if distribution is None:
        return "an unknown distribution"
    return f"{distribution.name} {distribution.version}"


def _wrong(point: EntryPoint, message: str) -> ConfigError:
    problem = Problem(0, f"{point.group} {point.name!r} ({point.value})", message)
    return ConfigError(_origin(point), [problem])
