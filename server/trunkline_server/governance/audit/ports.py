"""What the audit trail asks of others: a table that many replicas append to, an audience."""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

# The hash before the first entry's.
GENESIS = bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One entry as it is kept.

    `seq` counts from 1 without gaps. `at` is microseconds since the Unix epoch. `before` and
    `after` are SHA-256 digests of the resource, None where there was none. `details` is JSON
    text, an object whose values are text. `hash` covers all the others, among them `prev_hash`,
    which is the hash of the entry before.
    """

    seq: int
    at: int
    tenant: str
    actor: str
    action: str
    resource: str
    before: bytes | None
    after: bytes | None
    details: str
    prev_hash: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain: how many entries there are, and the last one's hash."""

    count: int = 0
    hash: bytes = GENESIS


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuery:
    """Which entries are asked for; empty texts ask for any.

    `action` and `resource` are the beginnings of those of an entry. Times are microseconds since
    the Unix epoch, `since` included and `until` not. `before_seq` is for the next page.
    """

    tenant: str = ""
    actor: str = ""
    action: str = ""
    resource: str = ""
    since: int = 0
    until: int = 2**62
    before_seq: int = 2**62
    limit: int = 100


# Given the end of the chain, the entries to add to it.
Link = Callable[[Head], Sequence[Record]]


class AuditStore(Protocol):
    """The table of entries. Every method raises TrunklineError with SERVICE_UNAVAILABLE."""

    async def append(self, link: Link) -> Sequence[Record]:
        """Adds what `link` makes of the chain's end, while nobody else adds anything.

        All of it is added or nothing; after an error that cannot be known.
        """
        ...

    async def head(self) -> Head:
        """The end of the chain."""
        ...

    async def find(self, query: AuditQuery) -> Sequence[Record]:
        """Entries, the newest first."""
        ...

    def stream(self, *, since: int = 0) -> AsyncGenerator[Record]:
        """Every entry from a time on, in the order of `seq`, those added meanwhile too."""
        ...


class AuditWatch(Protocol):
    """Hears how writing goes. Must not block or raise."""

    def audit_delayed(self, waiting: int, problem: str) -> None:
        """Entries could not be written and wait."""
        ...

    def audit_written(self, count: int) -> None:
        """Entries were written."""
        ...

    def audit_lost(self, count: int) -> None:
        """Entries were dropped because too many waited."""
        ...
