"""From settings to the issuers of tokens: their keys, fetched and kept across reloads."""

import asyncio
from collections.abc import Mapping

from trunkline import v1
from trunkline_server.app.access import networks_of
from trunkline_server.clock import Clock
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.identity.claims import ClaimMap
from trunkline_server.governance.identity.issuers import IssuerEndpoint, IssuerKeys, IssuerWatch
from trunkline_server.governance.identity.tokens import Issuer, TokenPolicy, Tokens
from trunkline_server.settings import IssuerSettings
from trunkline_server.upstream.http import HttpClient, HttpRequest

# Discovery documents and key sets are small.
_MAX_DOCUMENT_BYTES = 2**20
_CONNECT_SECONDS = 5.0


class Issuers:
    """The issuers of the configurations so far. To be made on the event loop."""

    def __init__(self, http: HttpClient, clock: Clock, watch: IssuerWatch) -> None:
        self._http = http
        self._clock = clock
        self._watch = watch
        self._issuers: dict[IssuerEndpoint, IssuerKeys] = {}
        self._fetching: dict[IssuerEndpoint, asyncio.Task[None]] = {}
        # Issuers that left while a fetch of theirs was under way, for which calls may wait.
        self._leaving: list[IssuerKeys] = []

    def tokens(self, issuers: Mapping[str, IssuerSettings]) -> Tokens:
        """What verifies the tokens of some issuers; those that stay keep their keys."""
        return Tokens(
            Issuer(self._keys(_endpoint(name, issuer)), _policy(issuer))
            for name, issuer in issuers.items()
        )

    def adopt(self, issuers: Mapping[str, IssuerSettings]) -> None:
        """Fetches the keys of these issuers from now on, and of no others."""
        self._leaving = [keys for keys in self._leaving if keys.fetching]
        wanted = {_endpoint(name, issuer) for name, issuer in issuers.items()}
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

    async def _fetch(self, url: str) -> bytes:
        """A governance.identity.issuers.Fetch; its caller bounds the time of the whole."""
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
