"""API keys: who calls, by a secret of which only the digest is known.

A key is `tk_`, eight hexadecimal digits for people to tell keys apart by, and 256 random bits.
It is kept as its SHA-256: a slow hash protects what can be guessed, and nobody guesses 256 bits,
while a slow hash on every call would cost more than the call.
"""

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.addresses import Networks
from trunkline_server.governance.identity.principal import ANONYMOUS, Kind, Principal

__all__ = [
    "PREFIX",
    "Key",
    "KeyRing",
    "LastUsed",
    "NewKey",
    "Principal",
    "RetiredSecret",
    "digest_of",
    "new_key",
]

PREFIX = "tk_"


class NewKey(NamedTuple):
    """A key that was just made. `text` is shown once and kept nowhere; `prefix` is its beginning,
    which tells it apart and opens nothing."""

    text: str
    prefix: str
    digest: bytes

    def __repr__(self) -> str:
        return f"NewKey(prefix={self.prefix!r})"


def new_key() -> NewKey:
    """Makes a key."""
    prefix = PREFIX + secrets.token_hex(4)
    text = f"{prefix}_{secrets.token_urlsafe(32)}"
    return NewKey(text, prefix, digest_of(text))


@dataclass(frozen=True, slots=True)
class RetiredSecret:
    """The secret that a key had before it was rotated; it opens until `until`, Unix seconds."""

    digest: bytes = field(repr=False)
    until: float


# Told apart by identity: principals are what is compared.
@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """One key, of which only the SHA-256 digest is known.

    `expires` is in Unix seconds, for retired secrets too. `section` is where in the
    configuration it stands. `prefix` is for people, and empty
    where it is not known. The rest is what the key's principal has; see there.
    """

    name: str
    digest: bytes = field(repr=False)
    models: tuple[str, ...] = ("*",)
    routes: tuple[str, ...] = ("*",)
    expires: float | None = None
    section: str = field(default="keys", kw_only=True)
    prefix: str = field(default="", kw_only=True)
    retired: tuple[RetiredSecret, ...] = field(default=(), kw_only=True)
    tenant: str = field(default="", kw_only=True)
    project: str = field(default="", kw_only=True)
    user: str = field(default="", kw_only=True)
    service: str = field(default="", kw_only=True)
    roles: frozenset[str] = field(default=frozenset(), kw_only=True)
    scopes: frozenset[str] | None = field(default=None, kw_only=True)
    tier: str = field(default="", kw_only=True)
    networks: Networks | None = field(default=None, kw_only=True)

    def principal(self) -> Principal:
        """Whoever shows the key."""
        return Principal(
            kind=Kind.KEY,
            name=self.name,
            source=f"{self.section}[{self.name}]",
            tenant=self.tenant,
            project=self.project,
            user=self.user,
            service=self.service,
            roles=self.roles,
            scopes=self.scopes,
            tier=self.tier,
            models=self.models,
            routes=self.routes,
            networks=self.networks,
        )


class LastUsed:
    """When each key was last shown, by name, in Unix seconds.

    Kept in memory; whoever persists it takes it now and then, and no call waits for a write.
    """

    __slots__ = ("moments",)

    def __init__(self) -> None:
        self.moments: dict[str, float] = {}

    def take(self) -> dict[str, float]:
        """What came together since the last time."""
        taken, self.moments = self.moments, {}
        return taken


class KeyRing:
    """The keys in force. Immutable: a reload makes a new one, with the same LastUsed."""

    def __init__(
        self, keys: Iterable[Key], last_used: LastUsed | None = None, *, required: bool = False
    ) -> None:
        """`required` has callers show a key though there is none yet. Raises ValueError when
        two keys have a secret in common: one would be the other."""
        self._last_used = last_used or LastUsed()
        self._secrets: dict[bytes, tuple[Principal, float]] = {}
        for key in keys:
            principal = key.principal()
            expires = inf if key.expires is None else key.expires
            opens = [(key.digest, expires)]
            opens += [(old.digest, min(old.until, expires)) for old in key.retired]
            for digest, until in opens:
                if digest in self._secrets:
                    other = self._secrets[digest][0].name
                    raise ValueError(f"the keys {other!r} and {key.name!r} have one secret")
                self._secrets[digest] = (principal, until)
        self._anonymous = None if self._secrets or required else ANONYMOUS

    @property
    def required(self) -> bool:
        """Whether callers must show a key."""
        return self._anonymous is None

    def authenticate(self, authorization: str, now: float) -> Principal:
        """The caller that an `authorization` header names; `now` in Unix seconds.

        Raises TrunklineError with AUTHENTICATION.
        """
        if self._anonymous is not None:
            return self._anonymous
        principal = self.find(digest_of(bearer(authorization)), now)
        if principal is None:
            raise unauthenticated("the key is not known")
        return principal

    def find(self, digest: bytes, now: float) -> Principal | None:
        """The caller whose key has a digest; None if no key has it.

        Raises TrunklineError with AUTHENTICATION for one that is over. Lookup is by digest, so
        that the time it takes tells nothing of the keys.
        """
        found = self._secrets.get(digest)
        if found is None:
            return None
        principal, until = found
        if now >= until:
            raise unauthenticated(f"the key {principal.name!r} has expired or was rotated")
        self._last_used.moments[principal.name] = now
        return principal


def bearer(authorization: str) -> str:
    """The token in an `authorization` header; raises TrunklineError with AUTHENTICATION."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        problem = "has no bearer key" if authorization else "is missing"
        raise unauthenticated(f"the authorization metadata {problem}")
    return token.strip()


def digest_of(token: str) -> bytes:
    """The digest under which a key is kept."""
    return hashlib.sha256(token.encode()).digest()


def unauthenticated(problem: str) -> TrunklineError:
    """The error for a caller who cannot show who it is."""
    return TrunklineError(v1.ERROR_REASON_AUTHENTICATION, problem, metadata={"scheme": "bearer"})
