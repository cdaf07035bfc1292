"""The signing keys of OpenID Connect issuers, fetched in the background.

Reading them never waits. What only a fetch can tell is a KeysPendingError, which says how to
wait for it. https://openid.net/specs/openid-connect-discovery-1_0.html
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

import orjson

from trunkline import v1
from trunkline_server.clock import Clock
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.identity.jwks import (
    KeySet,
    MalformedKeySetError,
    VerifyingKey,
    read_key_set,
)
from trunkline_server.governance.identity.pending import KeysPendingError

# Fetches a document by its URL. May raise TrunklineError, OSError or TimeoutError.
Fetch = Callable[[str], Awaitable[bytes]]

_DISCOVERY = "/.well-known/openid-configuration"
_MAX_DOCUMENT_BYTES = 2**20
# Between attempts to fetch while an issuer is away, in seconds: doubling from the first.
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
# Key ids that were asked for and not found, remembered to tell when each was looked for.
_MAX_STRANGERS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerEndpoint:
    """Where an issuer's keys are and how long they serve; times are seconds.

    `issuer` is the exact `iss` of its tokens. An empty `jwks_uri` is found by discovery. Keys
    are fetched every `refresh`; while that fails, the last ones serve until they are `max_stale`
    old. A key id that is not known has them fetched at once, at most every `forced_pause`.
    """

    name: str
    issuer: str
    jwks_uri: str = ""
    refresh: float = 600.0
    max_stale: float = 86_400.0
    forced_pause: float = 10.0
    fetch_timeout: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.refresh < self.max_stale:
            raise ValueError("refresh must be positive and below max_stale")
        if self.forced_pause <= 0 or self.fetch_timeout <= 0:
            raise ValueError("forced_pause and fetch_timeout must be positive")


class IssuerWatch(Protocol):
    """Hears how fetching goes. Must not block or raise."""

    def issuer_fetched(self, issuer: str, keys: int) -> None:
        """An issuer's keys are fresh; so many can be used."""
        ...

    def issuer_failed(self, issuer: str, problem: str, age: float | None) -> None:
        """A fetch failed; those in use are so many seconds old, None if there are none."""
        ...


class UnknownKeyError(Exception):
    """The issuer, as of now, has no key of this id and algorithm."""


class IssuerKeys:
    """The keys of one issuer. `generation` changes with them."""

    def __init__(
        self, endpoint: IssuerEndpoint, fetch: Fetch, clock: Clock, watch: IssuerWatch
    ) -> None:
        self.endpoint = endpoint
        self.generation = 0
        self._fetch = fetch
        self._clock = clock
        self._watch = watch
        self._keys: KeySet | None = None
        # Monotonic: when the fetch that brought the keys began, and when one was last forced.
        self._began = float("-inf")
        self._forced = float("-inf")
        # Fetches are numbered: the last one begun, and the one that brought the keys. Of a key
        # id that was not found, the last one begun before it was asked for.
        self._last_begun = 0
        self._brought_by = 0
        self._strangers: dict[str, int] = {}
        self._fetching: asyncio.Task[None] | None = None
        self._failed = False

    async def run(self) -> None:
        """Keeps the keys fresh until it is cancelled."""
        pause = _FIRST_PAUSE
        while True:
            await asyncio.shield(self._start())
            if self._failed:
                wait, pause = pause, min(2 * pause, _LONGEST_PAUSE)
            else:
                wait, pause = self.endpoint.refresh, _FIRST_PAUSE
            await asyncio.sleep(min(wait, self.endpoint.refresh))

    async def close(self) -> None:
        """Ends a fetch that is under way."""
        fetching = self._fetching
        if fetching is not None and not fetching.done():
            fetching.cancel()
            await asyncio.wait([fetching])

    @property
    def fetching(self) -> bool:
        """Whether a fetch is under way."""
        return self._fetching is not None and not self._fetching.done()

    def check_usable(self) -> None:
        """Raises KeysPendingError before the first fetch, and TrunklineError with
        SERVICE_UNAVAILABLE while the issuer is away and its keys are too old."""
        if self._keys is None and self._fetching is None:
            raise KeysPendingError(self.endpoint.name, self._start())
        if self._keys is None or self._age() >= self.endpoint.max_stale:
            raise self._pending_or_away("the issuer's keys cannot be fetched", _FIRST_PAUSE)

    def find(self, kid: str, algorithm: str) -> list[VerifyingKey]:
        """The keys that may have signed a token; a token without a key id has the empty one.

        Raises UnknownKeyError and as check_usable does, and while it is not known yet whether a
        key id is a new one.
        """
        self.check_usable()
        found = self._keys.find(kid, algorithm) if self._keys is not None else []
        if not found:
            self.ask_again(kid)
        return found

    def ask_again(self, kid: str) -> None:
        """Has the keys fetched for a key id that those at hand do not bear out.

        Raises UnknownKeyError if they have just been, else as find does.
        """
        now = self._clock.monotonic()
        pause = self.endpoint.forced_pause
        asked = self._strangers.get(kid)
        if asked is not None and asked < self._brought_by and now - self._began < pause:
            raise UnknownKeyError
        if asked is None:
            if len(self._strangers) >= _MAX_STRANGERS:
                self._strangers.clear()
            self._strangers[kid] = self._last_begun
        if now - self._forced >= pause:
            self._forced = now
            raise KeysPendingError(self.endpoint.name, self._start())
        raise self._pending_or_away("the token's key is not known yet", self._forced + pause - now)

    def _pending_or_away(self, problem: str, retry_after: float) -> TrunklineError:
        """The error for what a fetch under way may put right, or else a later one."""
        if self._fetching is not None and self.fetching:
            return KeysPendingError(self.endpoint.name, self._fetching)
        return TrunklineError(
            v1.ERROR_REASON_SERVICE_UNAVAILABLE,
            f"{problem}: issuer {self.endpoint.name!r}",
            metadata={"issuer": self.endpoint.name},
            retry_after=retry_after,
        )

    def _age(self) -> float:
        return self._clock.monotonic() - self._began

    def _start(self) -> "asyncio.Task[None]":
        """The fetch that is under way, or a new one. It ends well even if the fetch does not."""
        if self._fetching is None or self._fetching.done():
            self._last_begun += 1
            self._fetching = asyncio.create_task(self._refresh(self._last_begun))
        return self._fetching

    async def _refresh(self, number: int) -> None:
        began = self._clock.monotonic()
        name = self.endpoint.name
        try:
            async with asyncio.timeout(self.endpoint.fetch_timeout):
                keys = await self._fetch_keys()
        except (TrunklineError, OSError, TimeoutError, ValueError) as error:
            self._failed = True
            problem = str(error) or type(error).__name__
            self._watch.issuer_failed(name, problem, None if self._keys is None else self._age())
            return
        self._failed = False
        self._began = began
        self._brought_by = number
        if keys != self._keys:
            self._keys = keys
            self.generation += 1
        self._watch.issuer_fetched(name, len(keys.keys))

    async def _fetch_keys(self) -> KeySet:
        uri = self.endpoint.jwks_uri or await self._discover()
        return read_key_set(_bounded(await self._fetch(uri)))

    async def _discover(self) -> str:
        """The address of the keys, by the issuer's own word; raises ValueError."""
        issuer = self.endpoint.issuer
        document = _bounded(await self._fetch(issuer.rstrip("/") + _DISCOVERY))
        try:
            metadata = orjson.loads(document)
            claimed, uri = metadata["issuer"], metadata["jwks_uri"]
        except (orjson.JSONDecodeError, TypeError, KeyError):
            raise ValueError("the discovery document cannot be read") from None
        if claimed != issuer:
            raise ValueError("the discovery document is another issuer's")
        scheme = urlsplit(uri).scheme if isinstance(uri, str) else ""
        # Who is trusted over TLS does not have its keys replaced on the way.
        if scheme != "https" and scheme != urlsplit(issuer).scheme:
            raise ValueError("the discovery document's jwks_uri is no https URL")
        return str(uri)


def _bounded(document: bytes) -> bytes:
    if len(document) > _MAX_DOCUMENT_BYTES:
        raise MalformedKeySetError("the document is too large")
    return document
