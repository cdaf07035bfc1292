"""What the store holds of the configuration, put where it would stand in the file."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trunkline_server.settings.problems import Problem
from trunkline_server.settings.yaml_source import Node

# A resource's fields as the file has them, without its name: what JSON can hold.
Document = Mapping[str, Any]

# Sections that are maps of names, and those that are lists of records with a name.
MAP_KINDS = (
    *("providers", "models", "routes", "limits", "budgets"),
    *("tenants", "projects", "tiers", "roles", "bindings", "policies"),
)
LIST_KINDS = ("deployments", "keys")
# The kinds of resources that the store may own in place of the file.
STORED_KINDS = (*MAP_KINDS, *LIST_KINDS)

_ITEM = re.compile(r"\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Stored:
    """Documents by kind and name, as they were at a revision. `drained` are the providers and
    deployments that get no new calls, such as providers/openai."""

    documents: Mapping[str, Mapping[str, Document]] = field(default_factory=dict)
    drained: frozenset[str] = frozenset()
    revision: int = 0


def owned_by_store(root: Node) -> frozenset[str]:
    """The kinds that `state.owns` names; what is wrong with it is told where it is read."""
    state = root.entries.get("state")
    owns = None if state is None else state.entries.get("owns")
    named = () if owns is None else owns.items or (owns,)
    return frozenset(node.text for node in named).intersection(STORED_KINDS)


def references_of(root: Node, default: Sequence[str]) -> tuple[str, ...]:
    """What `state.references` permits, told as `owned_by_store` tells; unset, the default."""
    state = root.entries.get("state")
    named = None if state is None else state.entries.get("references")
    if named is None:
        return tuple(default)
    return tuple(node.text for node in named.items or (named,))


def graft(root: Node, stored: Stored, owned: Iterable[str]) -> tuple[Node, list[Problem]]:
    """The tree with the sections that the store owns, and a problem for each that is in the
    file as well. Grafted nodes have the line 0."""
    entries, problems = dict(root.entries), []
    for kind in sorted(owned):
        if kind in entries:
            line = entries[kind].line
            message = (
                "stands in the file, and state.owns says that the store owns it; move it to the "
                "store, or take it out of state.owns"
            )
            problems.append(Problem(line, kind, message))
            continue
        entries[kind] = _section(kind, stored.documents.get(kind, {}))
    return Node("map", root.line, root.path, entries=entries), problems


def located(problem: Problem, names: Mapping[str, Sequence[str]], owned: Iterable[str]) -> Problem:
    """A problem with the resource that it is in, if it is in one; `names` are those of each
    kind in the order of its section."""
    kind = re.split(r"[.\[]", problem.path, maxsplit=1)[0]
    rest = problem.path[len(kind) :]
    if kind in LIST_KINDS and (item := _ITEM.match(rest)):
        place = int(item[1])
        name = names[kind][place] if place < len(names.get(kind, ())) else ""
        rest = rest[item.end() :]
    else:
        after = rest.removeprefix(".")
        fitting = [
            one for one in names.get(kind, ()) if f"{after}.".startswith((f"{one}.", f"{one}["))
        ]
        name = max(fitting, key=len, default="")
        rest = after.removeprefix(name)
    if not name:
        return problem
    place_in = rest.removeprefix(".")
    return replace(problem, kind=kind, name=name, field=place_in, stored=kind in owned)


def _section(kind: str, documents: Mapping[str, Document]) -> Node:
    if kind in MAP_KINDS:
        entries = {name: _node(document, f"{kind}.{name}") for name, document in documents.items()}
        return Node("map", 0, kind, entries=entries)
    items = tuple(
        _node({**document, "name": name}, f"{kind}[{place}]")
        for place, (name, document) in enumerate(documents.items())
    )
    return Node("list", 0, kind, items=items)


def _node(value: Any, path: str) -> Node:
    """What JSON holds as the file's reader would give it."""
    if isinstance(value, Mapping):
        entries = {key: _node(each, f"{path}.{key}") for key, each in value.items()}
        return Node("map", 0, path, entries=entries)
    if isinstance(value, list | tuple):
        items = tuple(_node(each, f"{path}[{place}]") for place, each in enumerate(value))
        return Node("list", 0, path, items=items)
    if isinstance(value, bool):
        return Node("bool", 0, path, text="true" if value else "false")
    if isinstance(value, int | float):
        return Node("number", 0, path, text=repr(value))
    return Node("null", 0, path) if value is None else Node("text", 0, path, text=str(value))
