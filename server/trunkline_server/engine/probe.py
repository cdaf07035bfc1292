"""Active health checks: asks providers how they are when no calls do.

A probe that fails counts as a failure of each of the provider's deployments. One that succeeds
counts only where a breaker waits for a trial: a healthy deployment's own calls say more of it,
and a probe's latency is not that of an answer.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from trunkline import v1
from trunkline_server.engine.attempt import CREDENTIAL_REFUSED, Services
from trunkline_server.engine.ports import Headers
from trunkline_server.engine.table import Endpoint, Table
from trunkline_server.engine.verdict import Blame, verdict_on
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.codec import CodecTarget
from trunkline_server.routing.snapshot import Deployment
from trunkline_server.upstream.http import HttpClient, HttpRequest

# A provider that does not answer a trifle within this time is not well. Seconds.
_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Probe:
    """How to ask one provider: GET `path`, or one token of `model`; every `interval` seconds."""

    path: str
    model: str
    interval: float


class Prober:
    """Probes the providers that have a probe, until cancelled."""

    def __init__(
        self, services: Services, table: Callable[[], Table], probes: Mapping[str, Probe]
    ) -> None:
        """`table` gives the table in force; `probes` are by the provider's name."""
        self._services = services
        self._table = table
        self._probes = probes
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Probes each provider at its own pace."""
        async with asyncio.TaskGroup() as group:
            for provider, probe in self._probes.items():
                group.create_task(self._keep(provider, probe))

    async def _keep(self, provider: str, probe: Probe) -> None:
        while True:
            await asyncio.sleep(probe.interval)
            await self.ask(provider, probe)

    async def ask(self, provider: str, probe: Probe) -> None:
        """Asks once, and tells the health table."""
        table = self._table()
        endpoint = table.endpoints.get(provider)
        if endpoint is None:
            return
        error = await self._failure(table, endpoint, probe)
        if error is not None:
            self._log.warning(
                "probe failed",
                provider=provider,
                reason=v1.ErrorReason.Name(error.reason),
                http_status=error.http_status,
                error=endpoint.credential.redacted(error.message, endpoint.credential.headers),
            )
        for deployment in table.snapshot.deployments:
            if deployment.provider == provider:
                self._tell(table, deployment, error)

    async def _failure(
        self, table: Table, endpoint: Endpoint, probe: Probe
    ) -> UpstreamError | None:
        http, credential = self._services.http, endpoint.credential
        # A model may be spoken to otherwise than its provider's others.
        binding = table.bound(endpoint.provider, probe.model)
        endpoint, flags = binding.endpoint, binding.target.flags
        headers = credential.headers
        refusal = await probe_once(http, endpoint, probe, flags, headers)
        if refusal is not None and refusal.reason in CREDENTIAL_REFUSED:
            # As attempts do while a credential is changed.
            other = credential.refused(headers)
            if other is not None:
                refusal = await probe_once(http, endpoint, probe, flags, other)
        if refusal is None or verdict_on(refusal).blame is Blame.NONE:
            return None
        return None if is_wrong_path(probe, refusal) else refusal

    def _tell(self, table: Table, deployment: Deployment, error: UpstreamError | None) -> None:
        health, slot = table.health, deployment.slot
        now = self._services.clock.monotonic()
        if error is not None:
            health.begin(slot, now)
            cooldown = verdict_on(error).blame is Blame.COOLDOWN
            health.fail(slot, now, retry_after=error.retry_after, cooldown=cooldown)
        elif health.state(slot, now) == v1.CIRCUIT_STATE_HALF_OPEN and health.available(slot, now):
            health.begin(slot, now)
            health.succeed(slot, now, health.latency(slot) or 0.0)


async def probe_once(
    http: HttpClient,
    endpoint: Endpoint,
    probe: Probe,
    flags: Mapping[str, str | int | bool],
    headers: Headers,
) -> UpstreamError | None:
    """What went wrong when a provider was asked under these headers; None if it answered 2xx.

    `flags` are those of the probe's model.
    """
    try:
        request = _request(endpoint, probe, flags, headers)
        async with asyncio.timeout(_PATIENCE):
            reply = await http.fetch(request)
    except UpstreamError as error:
        return error
    except TimeoutError:
        return UpstreamError(v1.ERROR_REASON_TIMEOUT, f"no answer within {_PATIENCE:g} s")
    if 200 <= reply.status < 300:
        return None
    return endpoint.codec.decode_error(reply.status, reply.headers, reply.body)


def is_wrong_path(probe: Probe, refusal: UpstreamError) -> bool:
    """Whether a host merely lacks what it was asked for, which says nothing of it."""
    return not probe.model and refusal.reason == v1.ERROR_REASON_MODEL_NOT_FOUND


def _request(
    endpoint: Endpoint, probe: Probe, flags: Mapping[str, str | int | bool], headers: Headers
) -> HttpRequest:
    method, path, body = "GET", probe.path, b""
    if probe.model:
        message = v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text="ping")])
        request = v1.GenerateRequest(
            messages=[message], config=v1.GenerationConfig(max_output_tokens=1)
        )
        target = CodecTarget(probe.model, None, flags)
        wire = endpoint.codec.encode_generate(request, target, stream=False)
        method, path, body = wire.method, wire.path, wire.body
        headers += wire.headers
    ready = HttpRequest(
        method,
        endpoint.base_url + path,
        headers,
        body,
        endpoint.connect_timeout,
        _PATIENCE,
        endpoint.max_body_bytes,
    )
    return ready if endpoint.sign is None else endpoint.sign(ready)
