"""What there is to call, and how it fares: lists made of the table in force, without a decision."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from trunkline import v1
from trunkline_server.engine.ports import Caller
from trunkline_server.engine.table import Table
from trunkline_server.routing.health import HealthTable
from trunkline_server.routing.pricing import Price
from trunkline_server.routing.query import Constraint
from trunkline_server.routing.rules import broken_by
from trunkline_server.routing.snapshot import Deployment

# Below this part of good answers a deployment is degraded.
_GOOD = 0.9


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks, and when: `now` in monotonic and `at` in Unix seconds."""

    caller: Caller
    constraints: tuple[Constraint, ...]
    now: float
    at: float

    def sees(self, row: Deployment) -> bool:
        """Whether a deployment may be shown."""
        return (row.enabled or row.drained) and not broken_by(row, self.constraints)


def public_models(
    table: Table, viewer: Viewer, capabilities: Collection[str], provider: str
) -> list[v1.PublicModel]:
    """The models that a caller may use and whose deployments it may be served by, by name.

    Only those one of whose deployments has all of `capabilities`, at `provider` if that is not
    empty; its other deployments are left out.
    """
    wanted = frozenset(capabilities)
    found = []
    for name, route in sorted(table.snapshot.models.items()):
        if not viewer.caller.permits(name):
            continue
        rows = [
            row
            for row in route.members
            if viewer.sees(row)
            and wanted <= row.capabilities
            and (not provider or row.provider == provider)
        ]
        if rows:
            found.append(
                v1.PublicModel(
                    name=name,
                    capabilities=sorted(frozenset[str]().union(*(r.capabilities for r in rows))),
                    deployments=[_deployment(row, table.health, viewer) for row in rows],
                )
            )
    return found


def provider_health(table: Table, viewer: Viewer, provider: str) -> list[v1.ProviderHealth]:
    """How the providers fare whose deployments a caller may be served by, by name; only one of
    them if `provider` is not empty."""
    rows: dict[str, list[Deployment]] = {}
    for row in table.snapshot.deployments:
        if viewer.sees(row) and viewer.caller.permits(row.model):
            rows.setdefault(row.provider, []).append(row)
    told = []
    for name in sorted(rows):
        if provider and name != provider:
            continue
        deployments = [_health(row, table.health, viewer.now) for row in rows[name]]
        told.append(
            v1.ProviderHealth(
                provider=name,
                state=_together(each.state for each in deployments),
                deployments=deployments,
            )
        )
    return told


def _deployment(row: Deployment, health: HealthTable, viewer: Viewer) -> v1.ModelDeployment:
    told = v1.ModelDeployment(
        name=row.name,
        provider=row.provider,
        provider_model=row.provider_model,
        region=row.region,
        residency=sorted(row.residency),
        capabilities=sorted(row.capabilities),
        context_tokens=row.context_tokens,
        max_output_tokens=row.max_output_tokens,
        health=state_of(row, health, viewer.now),
    )
    if row.price is not None:
        told.prices.CopyFrom(_prices(row.price, viewer.at))
    return told


def _prices(price: Price, at: float) -> v1.UnitPrices:
    """The amounts of a million tokens and so on: what calls are charged, each rounded once."""
    million = 10**6
    usages: Sequence[tuple[str, v1.Usage]] = (
        ("input", v1.Usage(input_tokens=million)),
        ("output", v1.Usage(output_tokens=million)),
        ("cached_input", v1.Usage(input_tokens=million, cached_input_tokens=million)),
        ("cache_write", v1.Usage(input_tokens=million, cache_write_tokens=million)),
        ("input_audio_ms", v1.Usage(input_audio_ms=million)),
        ("output_audio_ms", v1.Usage(output_audio_ms=million)),
        ("input_characters", v1.Usage(input_characters=million)),
        ("search_unit", v1.Usage(search_units=1)),
    )
    request = price.base_cost(v1.Usage(), at).total
    told = v1.UnitPrices(request=request, image=price.dearest_image(at))
    for name, usage in usages:
        cost = price.base_cost(usage, at)
        if not cost.unpriced:
            setattr(told, name, cost.total - request)
    return told


def _health(row: Deployment, health: HealthTable, now: float) -> v1.DeploymentHealth:
    slot = row.slot
    latency = health.first_token(slot)
    if latency is None:
        latency = health.latency(slot)
    rate = health.success_rate(slot, now)
    pause = max(health.cooldown_remaining(slot, now), health.open_remaining(slot, now))
    known = latency is not None or rate < 1.0
    return v1.DeploymentHealth(
        deployment=row.name,
        state=state_of(row, health, now),
        success_rate=rate if known else None,
        latency_ms=None if latency is None else 1000.0 * latency,
        in_flight=health.in_flight(slot),
        cooldown_ms=round(1000.0 * pause),
    )


def state_of(row: Deployment, health: HealthTable, now: float) -> v1.HealthState.ValueType:
    """How a deployment fares."""
    slot = row.slot
    if row.drained:
        return v1.HEALTH_STATE_DRAINED
    if not health.available(slot, now):
        return v1.HEALTH_STATE_UNHEALTHY
    rate = health.success_rate(slot, now)
    if rate < _GOOD or health.state(slot, now) != v1.CIRCUIT_STATE_CLOSED:
        return v1.HEALTH_STATE_DEGRADED
    if rate == 1.0 and health.latency(slot) is None:
        return v1.HEALTH_STATE_UNSPECIFIED
    return v1.HEALTH_STATE_HEALTHY


def _together(states: Iterable[v1.HealthState.ValueType]) -> v1.HealthState.ValueType:
    """How a provider fares whose deployments fare so."""
    known = set(states) - {v1.HEALTH_STATE_UNSPECIFIED}
    if len(known) == 1:
        return known.pop()
    return v1.HEALTH_STATE_DEGRADED if known else v1.HEALTH_STATE_UNSPECIFIED
