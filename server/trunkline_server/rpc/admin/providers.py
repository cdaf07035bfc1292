"""ProviderService and DeploymentService: what can be done beside changing documents."""

from collections.abc import Iterable, Sequence

import orjson

from trunkline.admin import v1 as admin
from trunkline_server import pages
from trunkline_server.errors import invalid
from trunkline_server.rpc.admin.calls import Call
from trunkline_server.rpc.admin.crud import crud
from trunkline_server.rpc.admin.handlers import Methods
from trunkline_server.rpc.admin.kinds import DEPLOYMENTS, DRAINS, PROVIDERS, Kind
from trunkline_server.rpc.admin.ports import HealthRow, Resource, Table
from trunkline_server.rpc.admin.resources import ResourceEngine

_MAX_REASON = 500


class Drains:
    """Which providers and deployments get no new calls.

    They are resources of a kind of their own, named as permissions name what is drained, so
    that what the file owns can be drained too.
    """

    def __init__(self, engine: ResourceEngine) -> None:
        self._engine = engine

    async def find(self, kind: Kind, name: str) -> admin.Drain | None:
        """The drain of a provider or deployment, if there is one."""
        try:
            resource = await self._engine.store.get(DRAINS, f"{kind.name}/{name}")
        except self._engine.missing:
            return None
        return _drain(resource)

    async def names(self) -> set[str]:
        """All that is drained, such as providers/openai."""
        snapshot = await self._engine.store.read_all([DRAINS])
        return {resource.name for resource in snapshot.resources}

    async def drain(self, call: Call, kind: Kind, name: str, reason: str) -> admin.Drain:
        """Drains a provider or a deployment that is there."""
        target = await self._permitted(call, kind, name)
        if len(reason) > _MAX_REASON:
            raise invalid("reason", f"is longer than {_MAX_REASON} characters")
        actor = call.visitor.principal.source
        body = orjson.dumps({"reason": reason, "actor": actor})
        async with self._engine.store.change() as change:
            try:
                stored = await change.update(DRAINS, target, body)
            except self._engine.missing:
                stored = await change.create(DRAINS, target, body)
            details = {"reason": reason}
            await call.record_within(change, f"admin.{kind.name}.drain", target, details=details)
        return _drain(stored)

    async def undrain(self, call: Call, kind: Kind, name: str) -> None:
        """Ends the drain of a provider or a deployment, if there is one."""
        target = await self._permitted(call, kind, name)
        if await self.find(kind, name) is None:
            return
        try:
            async with self._engine.store.change() as change:
                await change.delete(DRAINS, target)
                await call.record_within(change, f"admin.{kind.name}.undrain", target)
        except self._engine.missing:
            return  # Somebody else was faster.

    async def _permitted(self, call: Call, kind: Kind, name: str) -> str:
        target = f"{kind.name}/{name}"
        call.permit(f"admin.{kind.name}.drain", target)
        await self._engine.find(kind, name)
        return target


class Providers:
    """ProviderService and DeploymentService."""

    def __init__(self, engine: ResourceEngine, table: Table) -> None:
        self._engine = engine
        self._table = table
        self._drains = Drains(engine)

    def provider_methods(self) -> Methods:
        """ProviderService."""
        return {
            **crud(self._engine, PROVIDERS),
            "DrainProvider": self._drain_provider,
            "UndrainProvider": self._undrain_provider,
            "GetProviderHealth": self._provider_health,
        }

    def deployment_methods(self) -> Methods:
        """DeploymentService."""
        return {
            **crud(self._engine, DEPLOYMENTS),
            "DrainDeployment": self._drain_deployment,
            "UndrainDeployment": self._undrain_deployment,
            "GetDeploymentHealth": self._deployment_health,
            "ListEffectivePrices": self._prices,
        }

    async def _drain_provider(
        self, call: Call, request: admin.DrainProviderRequest
    ) -> admin.DrainProviderResponse:
        drain = await self._drains.drain(call, PROVIDERS, request.name, request.reason)
        return admin.DrainProviderResponse(drain=drain)

    async def _undrain_provider(
        self, call: Call, request: admin.UndrainProviderRequest
    ) -> admin.UndrainProviderResponse:
        await self._drains.undrain(call, PROVIDERS, request.name)
        return admin.UndrainProviderResponse()

    async def _drain_deployment(
        self, call: Call, request: admin.DrainDeploymentRequest
    ) -> admin.DrainDeploymentResponse:
        drain = await self._drains.drain(call, DEPLOYMENTS, request.name, request.reason)
        return admin.DrainDeploymentResponse(drain=drain)

    async def _undrain_deployment(
        self, call: Call, request: admin.UndrainDeploymentRequest
    ) -> admin.UndrainDeploymentResponse:
        await self._drains.undrain(call, DEPLOYMENTS, request.name)
        return admin.UndrainDeploymentResponse()

    async def _provider_health(
        self, call: Call, request: admin.GetProviderHealthRequest
    ) -> admin.GetProviderHealthResponse:
        await self._engine.get(call, PROVIDERS, request.name)
        rows = [row for row in self._table.health() if row.provider == request.name]
        return admin.GetProviderHealthResponse(
            provider=request.name,
            replica=self._table.replica,
            drain=await self._drains.find(PROVIDERS, request.name),
            deployments=_health(rows, await self._drains.names()),
        )

    async def _deployment_health(
        self, call: Call, request: admin.GetDeploymentHealthRequest
    ) -> admin.GetDeploymentHealthResponse:
        deployment = await self._engine.get(call, DEPLOYMENTS, request.name)
        rows = [row for row in self._table.health() if row.deployment == request.name]
        health = _health(rows, await self._drains.names())
        unknown = admin.DeploymentHealth(deployment=request.name, provider=deployment.provider)
        return admin.GetDeploymentHealthResponse(
            health=health[0] if health else unknown,
            replica=self._table.replica,
            drain=await self._drains.find(DEPLOYMENTS, request.name),
        )

    async def _prices(
        self, call: Call, request: admin.ListEffectivePricesRequest
    ) -> admin.ListEffectivePricesResponse:
        call.permit("admin.deployments.read", DEPLOYMENTS.name)
        size = pages.size_of(request.page_size)
        question = ("prices", request.provider)
        after = pages.read_token(request.page_token, *question) or ""
        found = sorted(
            (
                price
                for price in self._table.prices()
                if price.deployment > after and request.provider in {"", price.provider}
            ),
            key=lambda price: price.deployment,
        )
        page = found[:size]
        more = len(found) > size
        return admin.ListEffectivePricesResponse(
            prices=page,
            next_page_token=pages.write_token(page[-1].deployment, *question) if more else "",
        )


def _drain(resource: Resource) -> admin.Drain:
    document = orjson.loads(resource.body)
    drain = admin.Drain(reason=document["reason"], actor=document["actor"])
    drain.since.FromMicroseconds(resource.created_at)
    return drain


def _health(rows: Iterable[HealthRow], drained: set[str]) -> Sequence[admin.DeploymentHealth]:
    return [
        _health_of(
            row,
            not drained.isdisjoint({f"providers/{row.provider}", f"deployments/{row.deployment}"}),
        )
        for row in sorted(rows, key=lambda row: row.deployment)
    ]


def _health_of(row: HealthRow, drained: bool) -> admin.DeploymentHealth:
    health = admin.DeploymentHealth(
        deployment=row.deployment,
        provider=row.provider,
        available=row.available and not drained,
        drained=drained,
        circuit_state=row.circuit_state,
        success_rate=row.success_rate,
        latency_us=round((row.latency or 0.0) * 1e6),
        first_token_us=round((row.first_token or 0.0) * 1e6),
        in_flight=row.in_flight,
        last_failure=row.last_failure,
    )
    if row.open_remaining > 0:
        health.open_remaining.FromNanoseconds(round(row.open_remaining * 1e9))
    if row.cooldown_remaining > 0:
        health.cooldown_remaining.FromNanoseconds(round(row.cooldown_remaining * 1e9))
    return health
