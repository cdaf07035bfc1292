"""What the control plane asks of others. Times are microseconds since the Unix epoch.

Usage and audit are asked through the ports of `ledger.queries` and `governance.audit.ports`.
Unless said otherwise, methods raise TrunklineError with SERVICE_UNAVAILABLE while what they
need is away.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import grpc

from trunkline import v1
from trunkline.admin import v1 as admin
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.access.access import Facts
from trunkline_server.governance.audit.chain import Act
from trunkline_server.governance.audit.checkpoints import Checkpoint
from trunkline_server.governance.audit.ports import Head
from trunkline_server.governance.identity.principal import Principal

Context = grpc.aio.ServicerContext[Any, Any]
# A resource's fields as the configuration file has them, without its name: what JSON can hold.
Document = Mapping[str, Any]


class Resource(Protocol):
    """A stored document: `body` is JSON, `tenant` is whose it is, or empty."""

    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    @property
    def etag(self) -> str: ...
    @property
    def revision(self) -> int: ...
    @property
    def body(self) -> bytes: ...
    @property
    def created_at(self) -> int: ...
    @property
    def updated_at(self) -> int: ...


class Page(Protocol):
    """Some of a list; an empty token means that nothing follows."""

    @property
    def resources(self) -> Sequence[Resource]: ...
    @property
    def next_page_token(self) -> str: ...


class Snapshot(Protocol):
    """All resources of some kinds, as they were at one revision."""

    @property
    def revision(self) -> int: ...
    @property
    def resources(self) -> Sequence[Resource]: ...


class Delta(Protocol):
    """What became of what changed between two revisions, as it is at the later one: `deleted`
    holds kinds and names."""

    @property
    def revision(self) -> int: ...
    @property
    def changed(self) -> Sequence[Resource]: ...
    @property
    def deleted(self) -> Sequence[tuple[str, str]]: ...


class Change(Protocol):
    """Changes under one revision, the next after the last.

    What is not there to be changed raises the store's own exception. `transaction` is what makes
    them one, for what others write with them.
    """

    @property
    def revision(self) -> int: ...
    @property
    def transaction(self) -> Any: ...

    async def create(self, kind: str, name: str, body: bytes, *, tenant: str = "") -> Resource:
        """Stores a new resource."""
        ...

    async def update(self, kind: str, name: str, body: bytes) -> Resource:
        """Replaces a body."""
        ...

    async def delete(self, kind: str, name: str) -> None:
        """Removes a resource."""
        ...


class Resources(Protocol):
    """The store of documents."""

    async def get(self, kind: str, name: str) -> Resource:
        """One resource; what is not there raises the store's own exception."""
        ...

    async def list(
        self,
        kind: str,
        *,
        prefix: str = "",
        tenant: str | None = None,
        page_size: int = 100,
        page_token: str = "",
    ) -> Page:
        """Those whose names begin with the prefix, of one tenant or of all, by name. Raises
        TrunklineError with INVALID_REQUEST for a token that this same list did not give."""
        ...

    async def read_all(self, kinds: Iterable[str]) -> Snapshot:
        """Every resource of these kinds, and the revision they are true for."""
        ...

    async def read_since(self, revision: int, kinds: Iterable[str]) -> Delta | None:
        """What changed of these kinds after a revision; None if that is not known any more."""
        ...

    def change(self) -> AbstractAsyncContextManager[Change]:
        """Changes that are made together when the block ends, or, if it raises, not at all."""
        ...


class Configured(Protocol):
    """What the configuration file owns, from memory."""

    @property
    def path(self) -> str:
        """The file's name, for messages."""
        ...

    def owns(self, kind: str) -> bool:
        """Whether the file, and not the store, has all resources of a kind."""
        ...

    def documents(self, kind: str) -> Mapping[str, Document]:
        """The resources of a kind that it owns, by name, as they stand in the file: references
        to secrets unresolved."""
        ...


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change that is to be judged: what `name` of `kind` would become, None for removed, and
    all documents of the kinds that the store owns as they would then be, by kind and name."""

    kind: str
    name: str
    document: Document | None
    documents: Mapping[str, Mapping[str, Document]]


@dataclass(frozen=True, slots=True)
class Problem:
    """What would be wrong after a change: the document at fault, the path of the field in it,
    which may be empty, and what is wrong, without quoting a secret."""

    kind: str
    name: str
    field: str
    description: str


class Validator(Protocol):
    """Tells whether what is stored would load."""

    async def check(self, proposal: Proposal) -> Sequence[Problem]:
        """The problems of a change, among them none that were there before it and that it has
        nothing to do with."""
        ...


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who calls, and what else access rules may ask of the call."""

    principal: Principal
    facts: Facts


class Gate(Protocol):
    """Who calls, and what they may do."""

    async def identify(self, context: Context) -> Visitor:
        """The caller; raises TrunklineError with AUTHENTICATION."""
        ...

    def check(self, visitor: Visitor, permission: str, target: str) -> None:
        """Raises TrunklineError with AUTHORIZATION, whose metadata name the rule, unless the
        caller has the permission on the target."""
        ...


class Trail(Protocol):
    """Takes what goes into the audit trail."""

    def record(self, act: Act) -> None:
        """Takes an act at once. Raises TrunklineError if there is no room for it: what it
        records must then not happen."""
        ...

    async def record_within(self, change: Change, act: Act) -> None:
        """Records an act as a part of a change: both hold, or neither."""
        ...


class Watch(Protocol):
    """Hears, for metrics and logs, of calls that fail. Must not block or raise.

    `operation` is the method, such as ProviderService.GetProvider.
    """

    def refused(self, operation: str, caller: str, error: TrunklineError) -> None:
        """A call failed as its caller was told; `caller` is empty while unknown."""
        ...

    def defect(self, operation: str, request_id: str, error: Exception) -> None:
        """An exception nobody expected ended a call."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthRow:
    """What is known of a deployment's health here; durations in seconds, None not measured."""

    deployment: str
    provider: str
    available: bool
    circuit_state: v1.CircuitState.ValueType
    open_remaining: float = 0.0
    cooldown_remaining: float = 0.0
    success_rate: float | None = None
    latency: float | None = None
    first_token: float | None = None
    in_flight: int = 0
    last_failure: v1.ErrorReason.ValueType = v1.ERROR_REASON_UNSPECIFIED


class Table(Protocol):
    """The routing table in force in this process, from memory."""

    @property
    def replica(self) -> str:
        """The name of this replica."""
        ...

    def health(self) -> Sequence[HealthRow]:
        """The health of every deployment."""
        ...

    def prices(self) -> Sequence[admin.EffectivePrice]:
        """What every deployment is taken to charge now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What a subject of a budget has spent in the present period; amounts in nanos of USD.

    `end` is None for a rolling window.
    """

    tenant: str
    subject: str
    start: int
    end: int | None
    amount: int
    spent: int
    reserved: int


class Balances(Protocol):
    """Tells what budgets have left."""

    async def balances(
        self,
        budget: str,
        *,
        tenant: str | None,
        subject: str | None,
        after: tuple[str, str],
        limit: int,
    ) -> Sequence[Balance]:
        """At most `limit` balances other than nothing, by tenant and subject, of those that
        come after a pair of them; of one tenant or subject or of all."""
        ...


class Checkpoints(Protocol):
    """This replica's file of checkpoints. Both block and raise OSError: call them in a thread."""

    def add(self, head: Head, at: int) -> Checkpoint:
        """Adds a checkpoint and returns when the disk has it."""
        ...

    def read(self) -> Sequence[Checkpoint]:
        """All of them, the oldest first. Raises ValueError for a file that is damaged."""
        ...


@dataclass(frozen=True, slots=True)
class SecretText:
    """A secret on its way to where it is encrypted."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretVersion:
    """One value of a credential, without the value. None is not known, or never."""

    version: str
    fingerprint: str
    state: Literal["active", "grace"]
    created_at: int | None = None
    grace_until: int | None = None
    expires_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretInfo:
    """A credential, without its values. `reference` is empty if the router keeps them."""

    name: str
    etag: str
    reference: str
    canary_provider: str
    created_at: int
    updated_at: int
    versions: tuple[SecretVersion, ...]


@dataclass(frozen=True, slots=True)
class Canary:
    """What became of trying a new value; `detail` holds no secret."""

    verdict: Literal["skipped", "accepted", "refused", "unreachable"]
    detail: str = ""


class Credentials(Protocol):
    """Keeps secrets. No error's text holds a value.

    An etag of None asks nothing. TrunklineError: NOT_FOUND, ALREADY_EXISTS, ABORTED for an etag
    that is not the present one, FAILED_PRECONDITION, and PROVIDER_CREDENTIALS where a value
    cannot be had or a provider refuses a first one.
    """

    async def list(self, *, prefix: str, after: str, limit: int) -> Sequence[SecretInfo]:
        """At most `limit` credentials after a name, by name."""
        ...

    async def get(self, name: str) -> SecretInfo:
        """One credential."""
        ...

    async def create(
        self, name: str, *, reference: str, canary_provider: str, value: SecretText | None
    ) -> tuple[SecretInfo, Canary]:
        """Stores a credential: its value, or where that is kept."""
        ...

    async def update(
        self,
        name: str,
        *,
        reference: str | None,
        canary_provider: str | None,
        etag: str | None,
    ) -> SecretInfo:
        """Changes what is not None."""
        ...

    async def rotate(
        self, name: str, *, value: SecretText | None, grace: float, etag: str | None
    ) -> tuple[SecretInfo, Canary]:
        """Puts another value in use, unless its provider refuses it; the one before is kept for
        `grace` seconds."""
        ...

    async def delete(self, name: str, *, etag: str | None) -> None:
        """Removes a credential with all its values."""
        ...
