"""The resources of a configuration file as they stand in it, for those who show them."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from trunkline_server.settings.stored import LIST_KINDS, MAP_KINDS, Document
from trunkline_server.settings.yaml_source import Node, read_yaml


def written_documents(text: str) -> dict[str, dict[str, Document]]:
    """The resources of each kind that a file has, by name: references to secrets unresolved,
    numbers as they are written. The text has been read as a configuration before."""
    root, _ = read_yaml(text, "")
    found: dict[str, dict[str, Document]] = {}
    for kind in MAP_KINDS:
        section = root.entries.get(kind)
        entries: Mapping[str, Node] = {} if section is None else section.entries
        found[kind] = {name: _record(node) for name, node in entries.items()}
    for kind in LIST_KINDS:
        section = root.entries.get(kind)
        records = [] if section is None else [_record(node) for node in section.items]
        found[kind] = {_name(each): {**each, "name": _name(each)} for each in records}
    return found


def _name(record: Document) -> str:
    if record.get("name"):
        return str(record["name"])
    return f"{record.get('provider')}-{str(record.get('model')).replace('/', '-')}"


def _record(node: Node) -> Document:
    value: Document = _plain(node) or {}
    return value


def _plain(node: Node) -> Any:
    if node.kind == "map":
        return {name: _plain(child) for name, child in node.entries.items()}
    if node.kind == "list":
        return [_plain(item) for item in node.items]
    if node.kind == "bool":
        return node.text.lower() in {"true", "yes", "on"}
    if node.kind == "number":
        return _number(node.text)
    return None if node.kind == "null" else node.text


def _number(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        return Decimal(text)
