"""The version of a routing table: equal for equal tables, in every process."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from decimal import Decimal
from typing import Any, ClassVar, Protocol

from trunkline_server.routing.snapshot import Deployment, ProviderTemplate, Route


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


class _Endpoint(_Dataclass, Protocol):
    @property
    def secrets(self) -> tuple[object, ...]: ...
    @property
    def render(self) -> Callable[[Sequence[str]], tuple[tuple[str, str], ...]]: ...


def table_version(
    deployments: Sequence[Deployment],
    policies: tuple[Mapping[str, Route], ...],
    templates: Mapping[str, ProviderTemplate],
    endpoints: Mapping[str, _Endpoint],
    headers_of: Mapping[str, tuple[tuple[str, str], ...]],
) -> str:
    """A short hash of all that is routed by, credentials and price functions left out."""
    digest = hashlib.sha256()
    prices: dict[int, str] = {}
    for row in deployments:
        key = id(row.price)
        if key not in prices:
            prices[key] = _canonical(row.price.versions if row.price else None)
        digest.update(_canonical([*_values(row, {"price"}), prices[key]]).encode())
    for group in policies:
        for name, route in sorted(group.items()):
            names = [member.name for member in route.members]
            digest.update(_canonical([name, *_values(route, {"members"}), names]).encode())
    for name in templates:
        digest.update(_canonical(_values(templates[name], {"price_of", "enabled"})).encode())
        if not templates[name].enabled:
            digest.update(b"drained")
        # A secret that is still to be fetched has its header all the same.
        names = [
            header for header, _ in endpoints[name].render([""] * len(endpoints[name].secrets))
        ]
        left_out = {"headers", "secrets", "render", "probe_path"}
        digest.update(_canonical([*_values(endpoints[name], left_out), names]).encode())
    if headers_of:
        digest.update(_canonical(headers_of).encode())
    return digest.hexdigest()[:12]


def _values(row: _Dataclass, left_out: Collection[str] = ()) -> list[object]:
    return [getattr(row, each.name) for each in fields(row) if each.name not in left_out]


def _canonical(value: object) -> str:
    """A text that is equal for equal values, in every process."""
    if is_dataclass(value) and not isinstance(value, type):
        return _canonical(_values(value))
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    if isinstance(value, frozenset):
        return _canonical(sorted(value))
    if isinstance(value, Mapping):
        return _canonical([[key, value[key]] for key in sorted(value)])
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_canonical, value))}]"
    return repr(value)
