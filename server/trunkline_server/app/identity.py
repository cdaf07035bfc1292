"""From settings to what tells callers: keys, tokens of issuers, client certificates."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Literal

from trunkline import v1
from trunkline_server.app.access import networks_of
from trunkline_server.clock import Clock
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.certificates import CertificateRule, Certificates
from trunkline_server.governance.claims import ClaimMap
from trunkline_server.governance.identity import Identity
from trunkline_server.governance.issuers import IssuerEndpoint, IssuerKeys, IssuerWatch
from trunkline_server.governance.keys import Key, KeyRing, LastUsed, RetiredSecret
from trunkline_server.governance.tokens import Issuer, TokenPolicy, Tokens
from trunkline_server.settings import (
    CertificateSettings,
    IssuerSettings,
    KeySettings,
    Settings,
)
from trunkline_server.upstream.http import HttpClient, HttpRequest

_NAMES: Mapping[str, Literal["uri", "dns", "subject"]] = {
    "uri": "uri",
    "dns": "dns",
    "subject": "subject",
}

# Discovery documents and key sets are small.
_MAX_DOCUMENT_BYTES = 2**20
_CONNECT_SECONDS = 5.0


class Identities:
    """Makes the Identity of each configuration, and keeps what outlives a reload: the keys of
    issuers that stay, and when callers' keys were last used. To be made on the event loop."""

    def __init__(self, http: HttpClient, clock: Clock, watch: IssuerWatch) -> None:
        self._http = http
        self._clock = clock
        self._watch = watch
        self._issuers: dict[IssuerEndpoint, IssuerKeys] = {}
        self._fetching: dict[IssuerEndpoint, asyncio.Task[None]] = {}
        # Issuers that left while a fetch of theirs was under way, for which calls may wait.
        self._leaving: list[IssuerKeys] = []
        self.last_used = LastUsed()

    def build(self, settings: Settings) -> Identity:
        """What tells callers by a configuration that was checked; `adopt` puts it in force."""
        return self._identity(settings, build_keys(settings, self.last_used))

    def build_admin(self, settings: Settings) -> Identity:
        """The same for the control plane, whose own keys open it too."""
        return self._identity(settings, build_admin_keys(settings, self.last_used))

    def _identity(self, settings: Settings, keys: KeyRing) -> Identity:
        return Identity(
            keys,
            self._tokens(settings.issuers) if settings.issuers else None,
            build_certificates(settings.certificates),
        )

    def adopt(self, settings: Settings) -> None:
        """Fetches the keys of this configuration's issuers from now on, and of no others."""
        self._leaving = [keys for keys in self._leaving if keys.fetching]
        wanted = {_endpoint(name, issuer) for name, issuer in settings.issuers.items()}
        for endpoint in self._issuers.keys() - wanted:
            self._end(endpoint)
        for endpoint in wanted - self._fetching.keys():
            self._fetching[endpoint] = asyncio.create_task(self._keys(endpoint).run())

    async def close(self) -> None:
        """Ends all fetches."""
        for endpoint in list(self._issuers):
            self._end(endpoint)
        await asyncio.gather(*(keys.close() for keys in self._leaving))
        self._leaving.clear()

    def _end(self, endpoint: IssuerEndpoint) -> None:
        self._leaving.append(self._issuers.pop(endpoint))
        fetching = self._fetching.pop(endpoint, None)
        if fetching is not None:
            fetching.cancel()

    def _keys(self, endpoint: IssuerEndpoint) -> IssuerKeys:
        """An issuer's keys, those at hand if it stays."""
        keys = self._issuers.get(endpoint)
        if keys is None:
            keys = IssuerKeys(endpoint, self._fetch, self._clock, self._watch)
            self._issuers[endpoint] = keys
        return keys

    def _tokens(self, issuers: Mapping[str, IssuerSettings]) -> Tokens:
        return Tokens(
            Issuer(self._keys(_endpoint(name, issuer)), _policy(issuer))
            for name, issuer in issuers.items()
        )

    async def _fetch(self, url: str) -> bytes:
        """A governance.issuers.Fetch; its caller bounds the time of the whole."""
        request = HttpRequest(
            "GET",
            url,
            (("accept", "application/json"),),
            b"",
            connect_timeout=_CONNECT_SECONDS,
            max_body_bytes=_MAX_DOCUMENT_BYTES,
        )
        response = await self._http.fetch(request)
        if response.status != 200:
            raise TrunklineError(
                v1.ERROR_REASON_SERVICE_UNAVAILABLE, f"{url}: HTTP status {response.status}"
            )
        return response.body


def build_keys(settings: Settings, last_used: LastUsed | None = None) -> KeyRing:
    """The keys that callers may show. Where the store owns them, callers need one even while
    there is none: who removes the last key closes the door. Raises ValueError."""
    required = "keys" in settings.state.owns
    return KeyRing(map(_key, settings.keys), last_used, required=required)


def build_admin_keys(settings: Settings, last_used: LastUsed | None = None) -> KeyRing:
    """The keys that open the control plane: its own, and callers', as far as their roles reach.
    Raises ValueError."""
    own = [
        Key(
            key.name,
            key.hash,
            expires=key.expires,
            section="admin.keys",
            roles=frozenset(key.roles),
        )
        for key in settings.admin.keys
    ]
    return KeyRing([*own, *map(_key, settings.keys)], last_used, required=True)


def build_certificates(rules: Iterable[CertificateSettings]) -> Certificates | None:
    """Whom client certificates stand for; None if they do for nobody."""
    found = [
        CertificateRule(
            rule=rule.name,
            identity=_NAMES[rule.identity],
            pattern=rule.pattern,
            fixed=rule.fixed,
            roles=frozenset(rule.roles),
            scopes=_scopes(rule.scopes),
            models=rule.models,
            routes=rule.routes,
            networks=networks_of(rule.networks),
        )
        for rule in rules
    ]
    return Certificates(found) if found else None


def _key(key: KeySettings) -> Key:
    return Key(
        key.name,
        key.hash,
        key.models,
        key.routes,
        key.expires,
        prefix=key.prefix,
        retired=tuple(RetiredSecret(old.hash, old.until) for old in key.retired),
        tenant=key.tenant,
        project=key.project,
        user=key.user,
        service=key.service,
        roles=frozenset(key.roles),
        scopes=_scopes(key.scopes),
        tier=key.tier,
        networks=networks_of(key.networks),
    )


def _scopes(scopes: tuple[str, ...]) -> frozenset[str] | None:
    return frozenset(scopes) if scopes else None


def _endpoint(name: str, issuer: IssuerSettings) -> IssuerEndpoint:
    return IssuerEndpoint(
        name=name,
        issuer=issuer.issuer,
        jwks_uri=issuer.jwks_uri,
        refresh=issuer.refresh,
        max_stale=issuer.max_stale,
        forced_pause=issuer.forced_pause,
        fetch_timeout=issuer.fetch_timeout,
    )


def _policy(issuer: IssuerSettings) -> TokenPolicy:
    return TokenPolicy(
        audiences=frozenset(issuer.audiences),
        algorithms=frozenset(issuer.algorithms),
        skew=issuer.skew,
        claims=ClaimMap(
            claims=issuer.claims,
            fixed=issuer.fixed,
            required=issuer.required,
            roles=issuer.roles,
            role_of=issuer.role_of,
            scope_prefix=issuer.scope_prefix,
            models=issuer.models,
            routes=issuer.routes,
            networks=networks_of(issuer.networks),
        ),
    )
