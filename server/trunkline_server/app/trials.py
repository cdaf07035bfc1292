"""Trials of credentials at their providers: one cheap authenticated call each."""

from typing import NamedTuple

from trunkline import v1
from trunkline_server.catalogue.compile import Endpoint
from trunkline_server.catalogue.extensions import dialects
from trunkline_server.engine.attempt import CREDENTIAL_REFUSED
from trunkline_server.engine.ports import Sign
from trunkline_server.engine.probe import Probe, is_wrong_path, probe_once
from trunkline_server.engine.table import Endpoint as EngineEndpoint
from trunkline_server.engine.table import FixedCredential
from trunkline_server.errors import UpstreamError
from trunkline_server.secrets.ports import Headers
from trunkline_server.upstream.http import HttpClient


class Trial(NamedTuple):
    """What became of a trial: skipped, accepted, refused or unreachable; `detail` is a reason
    and never the provider's own words, which may quote what it was shown."""

    verdict: str
    detail: str = ""


class Trials:
    """Tries credentials, unless that is switched off."""

    def __init__(self, http: HttpClient, *, on: bool) -> None:
        self._http = http
        self._on = on

    async def require(self, endpoint: Endpoint, headers: Headers, sign: Sign | None = None) -> None:
        """Raises UpstreamError unless the provider takes the headers, or has no opinion."""
        if self._on:
            await self._ask(endpoint, headers, sign)

    async def verdict(
        self, endpoint: Endpoint, headers: Headers, sign: Sign | None = None
    ) -> Trial:
        """What the provider says of the headers."""
        if not self._on:
            return Trial("skipped", "secrets.canary is off")
        try:
            told = await self._ask(endpoint, headers, sign)
        except UpstreamError as error:
            refused = error.reason in CREDENTIAL_REFUSED
            reason = v1.ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")
            return Trial("refused" if refused else "unreachable", reason)
        return Trial("accepted") if told else Trial("skipped", "the provider has no such path")

    async def _ask(self, endpoint: Endpoint, headers: Headers, sign: Sign | None) -> bool:
        """Whether a provider took some headers, and not merely lacks what it was asked for: then
        it has no opinion of them, and the grace has to do. Raises UpstreamError."""
        asked = endpoint.probe
        probe = Probe(endpoint.probe_path, "", 0.0)
        if asked is not None:
            probe = Probe(asked.path, asked.model, asked.interval)
        refusal = await probe_once(
            self._http, _engine_endpoint(endpoint, sign), probe, endpoint.flags, headers
        )
        if refusal is None:
            return True
        if is_wrong_path(probe, refusal):
            return False
        raise refusal


def _engine_endpoint(endpoint: Endpoint, sign: Sign | None) -> EngineEndpoint:
    return EngineEndpoint(
        endpoint.name,
        dialects()[endpoint.dialect],
        endpoint.base_url,
        FixedCredential(()),
        endpoint.connect_timeout,
        endpoint.header_timeout,
        endpoint.max_body_bytes,
        sign=sign,
    )
