"""What credentials are made of, and what this room asks of others.

No repr in this room shows a value, and no port but those of storage and probing is handed one.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from trunkline import v1
from trunkline_server.errors import TrunklineError

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class SecretValue:
    """A secret as its source gave it.

    `version` names the value without telling it. `expires` is in Unix seconds; None means
    that the source knows of no end.
    """

    value: str = field(repr=False)
    version: str
    expires: float | None = None


class SecretError(TrunklineError):
    """A secret cannot be had. The message names the reference, never a value."""

    def __init__(self, message: str) -> None:
        super().__init__(v1.ERROR_REASON_PROVIDER_CREDENTIALS, message)


class SecretUnavailableError(SecretError):
    """The source did not answer, or answered that it cannot just now: another try may do."""


class SecretRefusedError(SecretError):
    """The source answered: no such secret, no such field, or no right to it."""


class SecretSource(Protocol):
    """A place that secrets are fetched from, by references of one scheme."""

    async def fetch(self, reference: str) -> SecretValue:
        """The secret's value now. Raises SecretError. Never called on the request path."""
        ...


class SecretWatch(Protocol):
    """Watches secrets, for metrics. Must not block or raise; never sees a value."""

    def fetched(self, reference: str, version: str, seconds: float) -> None:
        """A value came, after so many seconds."""
        ...

    def fetch_failed(self, reference: str, problem: str, stale_for: float) -> None:
        """A fetch failed; the value in use has been due for renewal for so many seconds."""
        ...


class SecretAudit(Protocol):
    """Hears of every read and every change of a secret. Must not block or raise."""

    def __call__(self, action: str, name: str, detail: Mapping[str, str]) -> None:
        """`action` is a dotted verb such as "credential.rotate"; `detail` never holds a value."""
        ...


@dataclass(frozen=True, slots=True)
class SealedRecord:
    """An encrypted record as the store keeps it; `etag` changes with every write."""

    kind: str
    name: str
    sealed: bytes = field(repr=False)
    etag: str


class SealedStore(Protocol):
    """Keeps encrypted records. Every method raises TrunklineError while the store is away."""

    async def get(self, kind: str, name: str) -> SealedRecord | None:
        """The record, or None."""
        ...

    async def put(self, kind: str, name: str, sealed: bytes, etag: str | None) -> str | None:
        """Writes a record and gives its new etag.

        None, and nothing written, if the record's etag is no longer `etag`. An `etag` of ""
        asks that there be no such record yet, None asks nothing.
        """
        ...

    async def delete(self, kind: str, name: str, etag: str | None = None) -> bool:
        """Removes a record; False if there was none with that etag. An `etag` of None asks
        nothing."""
        ...

    async def etags(self, kind: str) -> Mapping[str, str]:
        """The etag of every record of a kind, by name, in the order of names."""
        ...

    def scan(self, batch: int) -> AsyncIterator[list[SealedRecord]]:
        """All records, in batches of at most `batch`; those written meanwhile may be missed."""
        ...


class Probe(Protocol):
    """One cheap authenticated call to a provider."""

    async def __call__(self, provider: str, headers: Headers) -> None:
        """Returns if the provider took the headers' credential; else raises TrunklineError."""
        ...
