"""All documents that the store owns, at one revision: what a change is judged against."""

from collections.abc import Sequence
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import TrunklineError, Violation, invalid_fields
from trunkline_server.rpc.admin.kinds import Kind
from trunkline_server.rpc.admin.ports import Problem, Proposal, Resource, Resources

Documents = dict[str, dict[str, dict[str, Any]]]


class Picture:
    """What is stored of some kinds at `revision`. Immutable."""

    def __init__(
        self,
        kinds: frozenset[str],
        revision: int,
        resources: dict[tuple[str, str], Resource],
        documents: Documents,
    ) -> None:
        self.kinds = kinds
        self.revision = revision
        self._resources = resources
        self._documents = documents

    @classmethod
    async def of(
        cls, store: Resources, kinds: frozenset[str], last: "Picture | None" = None
    ) -> "Picture":
        """The present one; with an earlier one, at the cost of what changed since."""
        if last is not None and last.kinds == kinds:
            delta = await store.read_since(last.revision, kinds)
            if delta is not None:
                return last._after(delta.revision, delta.changed, delta.deleted)
        snapshot = await store.read_all(kinds)
        return cls(kinds, 0, {}, {})._after(snapshot.revision, snapshot.resources, ())

    def _after(
        self, revision: int, changed: Sequence[Resource], deleted: Sequence[tuple[str, str]]
    ) -> "Picture":
        """The picture at a later revision."""
        resources = dict(self._resources)
        touched = {each.kind for each in changed} | {kind for kind, _ in deleted}
        documents = self._documents | {
            kind: dict(self._documents.get(kind, {})) for kind in touched
        }
        for kind, name in deleted:
            resources.pop((kind, name), None)
            documents[kind].pop(name, None)
        for each in changed:
            resources[each.kind, each.name] = each
            documents[each.kind][each.name] = orjson.loads(each.body)
        return Picture(self.kinds, revision, resources, documents)

    @property
    def documents(self) -> Documents:
        """All of them, by kind and name. Not to be changed."""
        return self._documents

    def find(self, kind: str, name: str) -> Resource | None:
        """One resource; None if there is none."""
        return self._resources.get((kind, name))

    def document(self, kind: str, name: str) -> dict[str, Any]:
        """The document of a resource that is there."""
        return self._documents[kind][name]

    def with_change(self, kind: str, name: str, document: dict[str, Any] | None) -> Proposal:
        """The proposal that a document becomes this, or None for removed."""
        changed = dict(self._documents)
        of_kind = changed[kind] = dict(changed.get(kind, {}))
        if document is None:
            of_kind.pop(name, None)
        else:
            of_kind[name] = document
        return Proposal(kind, name, document, changed)


def refuse(kind: Kind, name: str, problems: Sequence[Problem], *, removing: bool) -> None:
    """Raises TrunklineError for the problems of a change, if there are any: INVALID_REQUEST
    where the document itself is wrong, FAILED_PRECONDITION where others stand in its way."""
    if not problems:
        return
    own = [each for each in problems if (each.kind, each.name) == (kind.name, name)]
    if own and not removing:
        raise invalid_fields(
            [
                Violation(
                    f"{kind.field}.{each.field}" if each.field else kind.field, each.description
                )
                for each in own
            ]
        )
    violations = [
        Violation(
            f"{each.kind}[{each.name}]" + (f".{each.field}" if each.field else ""),
            each.description,
        )
        for each in problems
    ]
    raise TrunklineError(
        v1.ERROR_REASON_FAILED_PRECONDITION,
        f"{kind.name} {name!r} cannot be {'removed' if removing else 'changed so'}: "
        f"{violations[0].field}: {violations[0].description}",
        metadata={"kind": kind.name, "name": name},
        violations=violations,
    )
