"""The engine of resources: list, get, create, update and delete, the same for every kind."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson
from google.protobuf.message import Message

from trunkline import v1
from trunkline_server import pages
from trunkline_server.errors import TrunklineError, Violation, invalid, invalid_fields
from trunkline_server.rpc.admin.calls import Call, missing, stale, taken, unmet
from trunkline_server.rpc.admin.documents import DocumentError, from_document, to_document
from trunkline_server.rpc.admin.kinds import KINDS, Given, Kind
from trunkline_server.rpc.admin.masks import copy_paths, paths_of
from trunkline_server.rpc.admin.picture import Picture, refuse
from trunkline_server.rpc.admin.ports import (
    Change,
    Configured,
    Resource,
    Resources,
    Validator,
)

# Changes by other replicas that a change gives way to before it makes them wait.
_TRIES = 3
# Names stand in model strings, metric labels and log lines.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}\Z")
_NAME_WITH_SLASHES = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+/-]{0,127}\Z")


@dataclass(frozen=True, slots=True)
class Found:
    """A resource as it is: its message, its whole document, and whose it is."""

    message: Any
    document: Mapping[str, Any]
    tenant: str


# Given the resource as it is, the document that it is to become.
Edit = Callable[[Found], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to become of a resource: None before is a new one, None after a removed one."""

    before: Resource | None
    after: dict[str, Any] | None
    tenant: str


@dataclass(frozen=True, slots=True)
class _Aim:
    """What a call is to do to which resource."""

    call: Call
    kind: Kind
    name: str
    act: str


class _OvertakenError(Exception):
    """Another replica made a change since the one at hand was judged."""


class ResourceEngine:
    """Serves every kind of KINDS.

    A change is judged against all that is stored at a revision, and made only as the very next
    one, so that no two changes are stored that do not fit together. Judging takes its time, and
    keeps others waiting only where they have come in between too often.
    """

    def __init__(
        self,
        store: Resources,
        missing: type[Exception],
        files: Configured,
        validator: Validator,
    ) -> None:
        """`missing` is what the store raises for a resource that is not there."""
        self.store = store
        self.missing = missing
        self._files = files
        self._validator = validator
        # Changes of this process do not overtake one another.
        self._turn = asyncio.Lock()
        self._picture: Picture | None = None

    async def page(
        self,
        call: Call,
        kind: Kind,
        *,
        prefix: str = "",
        tenant: str = "",
        page_size: int = 0,
        page_token: str = "",
    ) -> tuple[list[Any], str]:
        """A page of resources by name, and the token of the next one; empty: it is the last."""
        call.permit(f"admin.{kind.name}.read", kind.name, tenant)
        size = pages.size_of(page_size)
        if self._files.owns(kind.name):
            return self._list_file(kind, prefix, tenant, size, page_token)
        page = await self.store.list(
            kind.name,
            prefix=prefix,
            tenant=tenant or None,
            page_size=size,
            page_token=page_token,
        )
        return [_found(kind, each).message for each in page.resources], page.next_page_token

    async def get(self, call: Call, kind: Kind, name: str) -> Any:
        """The message of one resource."""
        permission = f"admin.{kind.name}.read"
        try:
            found = await self.find(kind, name)
        except TrunklineError as error:
            if error.reason == v1.ERROR_REASON_NOT_FOUND:
                call.permit(permission, _target(kind, name))
            raise
        call.permit(permission, _target(kind, name), found.tenant)
        return found.message

    async def find(self, kind: Kind, name: str) -> Found:
        """One resource, whoever asks; raises TrunklineError with NOT_FOUND."""
        if not name:
            raise invalid("name", "is empty")
        if self._files.owns(kind.name):
            document = self._files.documents(kind.name).get(name)
            if document is None:
                raise missing(kind.name, name)
            return _read(kind, name, document)
        try:
            return _found(kind, await self.store.get(kind.name, name))
        except self.missing:
            raise missing(kind.name, name) from None

    async def create(
        self, call: Call, kind: Kind, message: Any, extra: Mapping[str, Any] | None = None
    ) -> Any:
        """Stores a new resource: the fields of the message that requests may set, and `extra`
        fields of the document. Gives its message."""
        name = message.name
        tenant = message.tenant if kind.owned else ""
        _check_name(kind, name, tenant)
        self._admit(call, kind, name, tenant)
        self.permit_gifts(call, set(kind.gives(message, name)))
        document = {**_written(kind, message), **(extra or {})}

        def judge(picture: Picture) -> _Plan:
            if picture.find(kind.name, name) is not None:
                raise taken(kind.name, name)
            return _Plan(None, document, tenant)

        return await self._change(_Aim(call, kind, name, "create"), judge)

    async def update(self, call: Call, kind: Kind, message: Any, mask: Sequence[str]) -> Any:
        """Changes the fields of a mask to those of a message, and gives the message stored."""
        if not message.name:
            raise invalid(f"{kind.field}.name", "is empty")
        paths = paths_of(mask, message, kind.output_only)

        def edit(found: Found) -> dict[str, Any]:
            changed = kind.message()
            changed.CopyFrom(found.message)
            copy_paths(message, changed, paths)
            for field in kind.immutable:
                if getattr(changed, field) != getattr(found.message, field):
                    raise invalid(f"{kind.field}.{field}", "cannot be changed")
            before = () if kind.gives_anew else kind.gives(found.message, message.name)
            self.permit_gifts(call, set(kind.gives(changed, message.name)).difference(before))
            known = kind.message.DESCRIPTOR.fields_by_name
            # What this version does not know, and what requests do not set, stays as it is.
            kept = {
                key: value
                for key, value in found.document.items()
                if key not in known or key in kind.output_only
            }
            return {**kept, **_written(kind, changed)}

        return await self.amend(call, kind, message.name, message.etag, edit)

    async def amend(
        self, call: Call, kind: Kind, name: str, etag: str, edit: Edit, *, act: str = "update"
    ) -> Any:
        """Makes a resource's document what `edit` makes of it, and gives the message stored.
        `edit` is called again when another change came in between."""

        def judge(picture: Picture) -> _Plan:
            before, found = self._present(call, kind, name, etag, picture)
            return _Plan(before, edit(found), found.tenant)

        return await self._change(_Aim(call, kind, name, act), judge)

    async def delete(self, call: Call, kind: Kind, name: str, etag: str) -> None:
        """Removes a resource and its companions."""

        def judge(picture: Picture) -> _Plan:
            before, found = self._present(call, kind, name, etag, picture)
            return _Plan(before, None, found.tenant)

        await self._change(_Aim(call, kind, name, "delete"), judge)

    async def _change(self, aim: _Aim, judge: Callable[[Picture], _Plan]) -> Any:
        """Makes a change that is permitted and would load; gives the message stored."""
        kind, name = aim.kind, aim.name
        if not name:
            raise invalid("name", "is empty")
        if self._files.owns(kind.name):
            self._admit(aim.call, kind, name)
        async with self._turn:
            for _ in range(_TRIES):
                plan, revision = await self._judged(aim, judge)
                with suppress(_OvertakenError):
                    async with self.store.change() as change:
                        if change.revision != revision + 1:
                            raise _OvertakenError
                        return await self._make(change, aim, plan)
            # Everybody else waits meanwhile, and nobody comes in between.
            async with self.store.change() as change:
                plan, _ = await self._judged(aim, judge)
                return await self._make(change, aim, plan)

    async def _judged(self, aim: _Aim, judge: Callable[[Picture], _Plan]) -> tuple[_Plan, int]:
        """What is to be done, as things are at a revision, and that revision."""
        owned = frozenset(each for each in KINDS if not self._files.owns(each))
        picture = self._picture = await Picture.of(self.store, owned, self._picture)
        plan = judge(picture)
        proposal = picture.with_change(aim.kind.name, aim.name, plan.after)
        problems = await self._validator.check(proposal)
        refuse(aim.kind, aim.name, problems, removing=plan.after is None)
        return plan, picture.revision

    async def _make(self, change: Change, aim: _Aim, plan: _Plan) -> Any:
        """Makes a change and records it with it; gives the message stored."""
        stored = await self._apply(change, aim, plan)
        await aim.call.record_within(
            change,
            f"admin.{aim.kind.name}.{aim.act}",
            _target(aim.kind, aim.name),
            plan.tenant,
            before=None if plan.before is None else plan.before.body,
            after=None if stored is None else stored.body,
            details={"fields": ",".join(_changed(plan))},
        )
        return None if stored is None else _found(aim.kind, stored).message

    async def _apply(self, change: Change, aim: _Aim, plan: _Plan) -> Resource | None:
        # Whether it is there, and as it was read, was judged at the revision before this one.
        kind, name = aim.kind, aim.name
        if plan.after is None:
            await change.delete(kind.name, name)
            for companion in kind.companions:
                with suppress(self.missing):
                    await change.delete(companion, _target(kind, name))
            return None
        body = _body(plan.after)
        if plan.before is None:
            return await change.create(kind.name, name, body, tenant=plan.tenant)
        return await change.update(kind.name, name, body)

    def _admit(self, call: Call, kind: Kind, name: str, tenant: str = "") -> None:
        """Raises unless the caller may change a resource, and the store owns its kind."""
        call.permit(f"admin.{kind.name}.write", _target(kind, name), tenant)
        if self._files.owns(kind.name):
            unmet(
                f"{kind.name} are owned by {self._files.path}: change them there",
                kind=kind.name,
                owner=self._files.path,
            )

    def _present(
        self, call: Call, kind: Kind, name: str, etag: str, picture: Picture
    ) -> tuple[Resource, Found]:
        """A resource that is there, that the caller may change, and whose etag is this one."""
        resource = picture.find(kind.name, name)
        self._admit(call, kind, name, "" if resource is None else resource.tenant)
        if resource is None:
            raise missing(kind.name, name)
        if etag and etag != resource.etag:
            raise stale(kind.name, name)
        return resource, _found(kind, resource)

    @staticmethod
    def permit_gifts(call: Call, gifts: set[Given]) -> None:
        """Raises unless the caller may give away these roles and tiers."""
        for kind, name in sorted(gifts):
            call.permit(f"admin.{kind}.grant", f"{kind}/{name}")

    def _list_file(
        self, kind: Kind, prefix: str, tenant: str, size: int, token: str
    ) -> tuple[list[Any], str]:
        question = (kind.name, prefix, tenant)
        after = pages.read_token(token, *question) or ""
        documents = self._files.documents(kind.name)
        names = [
            name
            for name in sorted(documents)
            if name > after
            and name.startswith(prefix)
            and (not tenant or documents[name].get("tenant") == tenant)
        ]
        page = names[:size]
        following = pages.write_token(page[-1], *question) if len(names) > size else ""
        return [_read(kind, name, documents[name]).message for name in page], following


def _target(kind: Kind, name: str) -> str:
    return f"{kind.name}/{name}"


def _check_name(kind: Kind, name: str, tenant: str) -> None:
    field = f"{kind.field}.name"
    pattern = _NAME_WITH_SLASHES if kind.slashes else NAME
    if not pattern.match(name):
        raise invalid(field, "is empty" if not name else "is no name; see the field's comment")
    if kind.nested:
        if not tenant:
            raise invalid(f"{kind.field}.tenant", "is empty")
        before, _, rest = name.partition("/")
        if before != tenant or not NAME.match(rest):
            raise invalid(field, "is not the tenant's name, a slash and a name without one")


def _written(kind: Kind, message: Message) -> dict[str, Any]:
    """The document of what requests may set of a message."""
    try:
        document = to_document(message)
    except DocumentError as error:
        raise invalid_fields([Violation(f"{kind.field}.{error.path}", error.problem)]) from None
    return {key: value for key, value in document.items() if key not in kind.output_only}


def _body(document: Mapping[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def _changed(plan: _Plan) -> list[str]:
    """The fields of a document that a plan changes."""
    before = {} if plan.before is None else orjson.loads(plan.before.body)
    after = plan.after or {}
    return sorted(key for key in {*before, *after} if before.get(key) != after.get(key))


def _read(kind: Kind, name: str, document: Mapping[str, Any]) -> Found:
    try:
        message: Any = from_document(kind.message, document)
    except DocumentError as error:
        raise TrunklineError(
            v1.ERROR_REASON_INTERNAL,
            f"{kind.name} {name!r} is stored in a form that cannot be read: {error}",
            metadata={"kind": kind.name, "name": name},
        ) from None
    message.name = name
    return Found(message, document, message.tenant if kind.owned else "")


def _found(kind: Kind, resource: Resource) -> Found:
    found = _read(kind, resource.name, orjson.loads(resource.body))
    message = found.message
    message.etag = resource.etag
    message.revision = resource.revision
    message.create_time.FromMicroseconds(resource.created_at)
    message.update_time.FromMicroseconds(resource.updated_at)
    return Found(message, found.document, resource.tenant)
