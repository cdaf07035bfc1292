"""The routing table of this process as the control plane shows it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from decimal import Decimal

from trunkline.admin import v1 as admin
from trunkline_server.clock import Clock
from trunkline_server.engine.table import Table
from trunkline_server.routing.pricing import Price
from trunkline_server.routing.rates import Rates
from trunkline_server.rpc.admin.ports import HealthRow
from trunkline_server.settings import Settings, deployment_name


class TableView:
    """An rpc.admin.ports.Table over the table and the settings in force."""

    def __init__(
        self,
        replica: str,
        table: Callable[[], Table],
        settings: Callable[[], Settings],
        clock: Clock,
    ) -> None:
        self.replica = replica
        self._table = table
        self._settings = settings
        self._clock = clock

    def health(self) -> Sequence[HealthRow]:
        """As Table.health."""
        return list(self._health())

    def prices(self) -> Sequence[admin.EffectivePrice]:
        """As Table.prices."""
        now = self._clock.wall()
        own = {deployment_name(row) for row in self._settings().deployments if row.price}
        return [
            _effective(
                admin.EffectivePrice(
                    deployment=row.name, provider=row.provider, model=row.provider_model
                ),
                row.price,
                now,
                configured=row.name in own,
            )
            for row in self._table().snapshot.deployments
        ]

    def _health(self) -> Iterator[HealthRow]:
        table, now = self._table(), self._clock.monotonic()
        health = table.health
        for row in table.snapshot.deployments:
            slot = row.slot
            latency, rate = health.latency(slot), health.success_rate(slot, now)
            cooldown = health.cooldown_remaining(slot, now)
            yield HealthRow(
                deployment=row.name,
                provider=row.provider,
                available=row.enabled and health.available(slot, now),
                circuit_state=health.state(slot, now),
                open_remaining=health.open_remaining(slot, now),
                cooldown_remaining=cooldown,
                # Without a failure or an answer nothing is measured.
                success_rate=None if latency is None and rate == 1.0 else rate,
                latency=latency,
                first_token=health.first_token(slot),
                in_flight=health.in_flight(slot),
            )


def _effective(
    told: admin.EffectivePrice, price: Price | None, now: float, *, configured: bool
) -> admin.EffectivePrice:
    if price is None:
        return told
    told.source = admin.PRICE_SOURCE_OVERRIDE if configured else admin.PRICE_SOURCE_TABLE
    told.price.CopyFrom(_rates(price.rates(now)))
    for tier in sorted(price.tiers(now), key=lambda tier: tier.above):
        told.tiers.add(above_tokens=tier.above, price=_rates(tier.rates))
    return told


def _rates(rates: Rates) -> admin.Price:
    told = admin.Price()
    for row in fields(rates):
        value = getattr(rates, row.name)
        if row.name == "images":
            for name, each in value:
                told.images[name] = _text(each)
        elif value is not None and (value or row.name != "per_request"):
            setattr(told, row.name, _text(value))
    return told


def _text(amount: Decimal) -> str:
    return f"{amount.normalize():f}"
