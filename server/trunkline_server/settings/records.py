"""Reads maps into dataclasses whose fields say how they are read.

A field annotated as `Annotated[T, reader]` is a key of the map, required if it has no default.
Other fields are not keys.
"""

from dataclasses import MISSING, Field, fields
from typing import Annotated, Any, ClassVar, Protocol, TypeVar, get_origin, get_type_hints

from trunkline_server.settings.problems import InvalidValueError, suggestion
from trunkline_server.settings.values import Context, Reader
from trunkline_server.settings.yaml_source import Node

R = TypeVar("R")


class _DataclassInstance(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


D = TypeVar("D", bound=_DataclassInstance)


class _Row:
    """One key of a record."""

    def __init__(self, kind: Any, reader: Reader[Any], row: Field[Any]) -> None:
        self.reader = reader
        self.required = row.default is MISSING and row.default_factory is MISSING
        # Stands in for a required value that is wrong or missing, once that is reported.
        self.blank = get_origin(kind) or kind


def record(cls: type[D]) -> Reader[D]:
    """A reader of a map with the fields of a dataclass.

    Every problem in it is reported, none raised; the record is then made with defaults in
    place of what is wrong, so that the rest of the configuration can still be checked.
    """
    rows = _rows(cls)

    def read(node: Node, context: Context) -> D:
        if node.kind not in {"map", "null"}:
            context.report(node, f"write a map with {', '.join(list(rows)[:4])}, ...")
            return blank(cls)
        for name in node.entries.keys() - rows.keys():
            hint = suggestion(name, rows) or f"; known are {', '.join(sorted(rows))}"
            context.report(node.entries[name], f"is not known here{hint}")
        values = {}
        for name, row in rows.items():
            child = node.entries.get(name)
            if child is not None:
                try:
                    values[name] = row.reader(child, context)
                    continue
                except InvalidValueError as error:
                    context.report(child, str(error))
            elif row.required:
                context.report(node, f"lacks {name}")
            if row.required:
                values[name] = row.blank()
        return cls(**values)

    return read


def blank(cls: type[D]) -> D:
    """A record made of nothing, to go on with once its problems are reported."""
    return cls(**{name: row.blank() for name, row in _rows(cls).items() if row.required})


def _rows(cls: type[_DataclassInstance]) -> dict[str, _Row]:
    hints = get_type_hints(cls, include_extras=True)
    return {
        row.name: _Row(hint.__origin__, hint.__metadata__[0], row)
        for row in fields(cls)
        if get_origin(hint := hints[row.name]) is Annotated
    }


def list_of(reader: Reader[R]) -> Reader[tuple[R, ...]]:
    """A reader of a list of records."""

    def read(node: Node, context: Context) -> tuple[R, ...]:
        if node.kind not in {"list", "null"}:
            raise InvalidValueError("write a list")
        return tuple(reader(item, context) for item in node.items)

    return read


def map_of(reader: Reader[R]) -> Reader[dict[str, R]]:
    """A reader of a map of names to records."""

    def read(node: Node, context: Context) -> dict[str, R]:
        if node.kind not in {"map", "null"}:
            raise InvalidValueError("write a map of names")
        return {name: reader(child, context) for name, child in node.entries.items()}

    return read
