"""YAML as a tree that remembers its lines.

Only plain data is read: maps with text keys, lists, and scalars of the core types. Scalars
keep their text as written, so that prices stay exact and `no` can be told from `"no"`.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Literal

import yaml

from trunkline_server.settings.problems import ConfigError, Problem

# libyaml where it is compiled in: ten times as fast, for tables of ten thousand deployments.
_Loader: type[yaml.SafeLoader] | type[yaml.CSafeLoader] = getattr(
    yaml, "CSafeLoader", yaml.SafeLoader
)

_MAX_CHARACTERS = 16 * 1024 * 1024
# Aliases repeat what they name: a file may be short and its tree without end.
_MAX_NODES = 300_000
_MAX_DEPTH = 32

_TAG_PREFIX = "tag:yaml.org,2002:"
_SCALARS = frozenset({"str", "int", "float", "bool", "null", "timestamp"})

_NO_ENTRIES: Mapping[str, "Node"] = MappingProxyType({})

Kind = Literal["map", "list", "text", "number", "bool", "null"]

_KINDS: Mapping[str, Kind] = {"int": "number", "float": "number", "bool": "bool", "null": "null"}


class Node:
    """One value, its line, and its path from the root, such as `deployments[0].price`.

    `line` is that of the key for values of a map. `text` is a scalar as written. A `text`
    node is quoted or looks like no other type. Large tables have a hundred thousand of them.
    """

    __slots__ = ("entries", "items", "kind", "line", "path", "text")

    def __init__(
        self,
        kind: Kind,
        line: int,
        path: str,
        *,
        text: str = "",
        entries: Mapping[str, "Node"] = _NO_ENTRIES,
        items: tuple["Node", ...] = (),
    ) -> None:
        self.kind = kind
        self.line = line
        self.path = path
        self.text = text
        self.entries = entries
        self.items = items

    def walk(self) -> Iterator["Node"]:
        """This node and all below it."""
        pending = [self]
        while pending:
            node = pending.pop()
            yield node
            pending += node.entries.values()
            pending += node.items


def read_yaml(text: str, name: str) -> tuple[Node, list[Problem]]:
    """The tree of a document, and what is wrong with its form.

    An empty document is an empty map. Raises ConfigError for text that is not YAML at all.
    """
    if len(text) > _MAX_CHARACTERS:
        raise ConfigError(name, [Problem(0, "", "is larger than 16 MiB")])
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 0
        problem = Problem(line, "", f"is not valid YAML: {error.problem or error.context}")
        # Not chained: the library's own error quotes lines of the file.
        raise ConfigError(name, [problem]) from None
    except yaml.YAMLError as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(name, [Problem(0, "", f"is not valid YAML: {reason}")]) from None
    except RecursionError:
        raise ConfigError(name, [Problem(0, "", "is nested too deeply")]) from None
    if root is None:
        return Node("map", 1, ""), []
    builder = _Builder()
    try:
        tree = builder.build(root, "", root.start_mark.line + 1, 0)
    except _TooLargeError as error:
        raise ConfigError(name, [Problem(error.line, "", str(error))]) from None
    return tree, builder.problems


class _TooLargeError(Exception):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class _Builder:
    """Turns composed YAML nodes into ours, counting them."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._count = 0

    def build(self, node: yaml.Node, path: str, line: int, depth: int) -> Node:
        self._count += 1
        if self._count > _MAX_NODES:
            raise _TooLargeError(line, "holds too many values; are aliases multiplied?")
        if depth > _MAX_DEPTH:
            raise _TooLargeError(line, "is nested too deeply; does an alias name itself?")
        if isinstance(node, yaml.MappingNode):
            self._check_tag(node, path, line, {"map"})
            return Node("map", line, path, entries=self._entries(node, path, depth))
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, path, line, {"seq"})
            items = tuple(
                self.build(item, f"{path}[{index}]", item.start_mark.line + 1, depth + 1)
                for index, item in enumerate(node.value)
            )
            return Node("list", line, path, items=items)
        self._check_tag(node, path, line, _SCALARS)
        return Node(_scalar_kind(node.tag), line, path, text=node.value)

    def _entries(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self.problems.append(Problem(line, path, "a key is a single word or text"))
                continue
            name = key.value
            where = f"{path}.{name}" if path else name
            if name in entries:
                first = entries[name].line
                message = f"is set twice; the first time in line {first}"
                self.problems.append(Problem(line, where, message))
                continue
            entries[name] = self.build(value, where, line, depth + 1)
        return entries

    def _check_tag(
        self, node: yaml.Node, path: str, line: int, allowed: frozenset[str] | set[str]
    ) -> None:
        if node.tag.removeprefix(_TAG_PREFIX) not in allowed:
            self.problems.append(Problem(line, path, "has a YAML tag, which is not allowed here"))


def _scalar_kind(tag: str) -> Kind:
    return _KINDS.get(tag.removeprefix(_TAG_PREFIX), "text")
