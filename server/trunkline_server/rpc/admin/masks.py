"""Field masks: which fields of a resource an update changes (google.aip.dev/134, /161)."""

from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from trunkline_server.errors import Violation, invalid_fields
from trunkline_server.rpc.admin.documents import METADATA

FIELD = "update_mask"
_ALL = "*"
_MAX_PATHS = 256


def paths_of(mask: Iterable[str], message: Message, fixed: frozenset[str]) -> list[str]:
    """The paths that an update is to copy from `message`; `fixed` are the fields that requests
    do not set.

    An empty mask stands for all fields that are set, `*` for all. Raises TrunklineError with
    INVALID_REQUEST for paths that lead nowhere or to what cannot be changed.
    """
    given = list(dict.fromkeys(mask))
    unchanged = METADATA | fixed
    if not given:
        return [row.name for row, _ in message.ListFields() if row.name not in unchanged]
    if given == [_ALL]:
        return [row.name for row in message.DESCRIPTOR.fields if row.name not in unchanged]
    if len(given) > _MAX_PATHS:
        raise invalid_fields([Violation(FIELD, f"has more than {_MAX_PATHS} paths")])
    violations = []
    for path in given:
        problem = _problem(message.DESCRIPTOR, path, unchanged)
        if problem:
            violations.append(Violation(FIELD, f"the path {path[:128]!r} {problem}"))
    if violations:
        raise invalid_fields(violations)
    return given


def copy_paths(source: Message, target: Message, paths: Sequence[str]) -> None:
    """Makes the fields at these paths of one message what they are in another; a field that is
    not set there is cleared."""
    for path in paths:
        _copy(source, target, path.split("."))


def _problem(descriptor: Any, path: str, unchanged: frozenset[str]) -> str:
    names = path.split(".")
    if path == _ALL:
        return "stands for all fields, and by itself"
    if names[0] in unchanged:
        return "leads to what cannot be changed"
    place = descriptor
    for depth, name in enumerate(names):
        row = None if place is None else place.fields_by_name.get(name)
        if row is None:
            return "leads to no field"
        if depth + 1 < len(names) and (row.is_repeated or row.message_type is None):
            return f"reaches into {name}, which is replaced whole"
        place = row.message_type
    return ""


def _copy(source: Any, target: Any, names: Sequence[str]) -> None:
    name, rest = names[0], names[1:]
    row: FieldDescriptor = source.DESCRIPTOR.fields_by_name[name]
    if rest:
        if source.HasField(name) or target.HasField(name):
            _copy(getattr(source, name), getattr(target, name), rest)
        return
    target.ClearField(name)
    if row.is_repeated:
        getattr(target, name).MergeFrom(getattr(source, name))
    elif not row.has_presence:
        setattr(target, name, getattr(source, name))
    elif source.HasField(name):
        if row.message_type is not None:
            getattr(target, name).CopyFrom(getattr(source, name))
        else:
            setattr(target, name, getattr(source, name))
