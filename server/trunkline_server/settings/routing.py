"""The configuration of choice: policies over deployments, and how their targets are tried."""

from dataclasses import dataclass
from typing import Annotated

from trunkline_server.settings import values as read
from trunkline_server.settings.records import record
from trunkline_server.settings.values import Context
from trunkline_server.settings.yaml_source import Node

STRATEGIES = (
    "priority",
    "weighted",
    "round_robin",
    "lowest_cost",
    "least_latency",
    "highest_availability",
    "feature_based",
    "balanced",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSettings:
    """`attempts`: how each target of a plan is tried. None: as `routing.attempts` says."""

    # Further tries of the same target, after a random part of a pause that doubles from
    # backoff_base up to backoff_max.
    retries: Annotated[int | None, read.integer(0, 10)] = None
    backoff_base: Annotated[float | None, read.duration(0, 60)] = None
    backoff_max: Annotated[float | None, read.duration(0, 600)] = None
    # A whole answer in one piece; the first byte of a stream; the longest silence in one. For
    # the first two, 0 leaves it to the caller's deadline.
    attempt_timeout: Annotated[float | None, read.duration(0, 86_400)] = None
    first_byte_timeout: Annotated[float | None, read.duration(0, 86_400)] = None
    idle_timeout: Annotated[float | None, read.duration(0.001, 86_400)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeSettings:
    """`hedge`: a second attempt beside a slow first one; `false` switches it off."""

    # It starts when the first attempt takes longer than this share of earlier ones did, and
    # not before min_delay. A percentile of 0 is none: hedging is off.
    percentile: Annotated[float, read.number(0.5, 0.9999)] = 0.95
    min_delay: Annotated[float, read.duration(0.001, 600)] = 0.05


NO_HEDGE = HedgeSettings(percentile=0.0)


def _hedge(node: Node, context: Context) -> HedgeSettings:
    if node.kind == "bool":
        return HedgeSettings() if read.boolean(node, context) else NO_HEDGE
    return record(HedgeSettings)(node, context)


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceSettings:
    """`balance`: how much each ingredient of the balanced strategy counts."""

    cost: Annotated[float, read.number(0, 1000)] = 0.4
    latency: Annotated[float, read.number(0, 1000)] = 0.3
    availability: Annotated[float, read.number(0, 1000)] = 0.2
    quality: Annotated[float, read.number(0, 1000)] = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """`models.NAME` and `routes.NAME`: a policy over deployments.

    What is unset is as `routing` says. A model lists the deployments that answer under its
    public name, each of which belongs to one model; a deployment that no model lists is
    public under its own model id. A route is asked for as route:NAME and may list any.
    """

    deployments: Annotated[tuple[str, ...], read.texts]
    strategy: Annotated[str | None, read.choice(*STRATEGIES)] = None
    # How many deployments one call may try.
    max_targets: Annotated[int | None, read.integer(1, 20)] = None
    balance: Annotated[BalanceSettings | None, record(BalanceSettings)] = None
    attempts: Annotated[AttemptSettings, record(AttemptSettings)] = AttemptSettings()
    hedge: Annotated[HedgeSettings | None, _hedge] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """`routing.breaker`: when a deployment is left alone, and for how long."""

    # It opens after so many failures in a row, or at this share of failures among at least
    # min_calls recent calls.
    consecutive_failures: Annotated[int, read.integer(1, 10_000)] = 5
    error_rate: Annotated[float, read.number(0.01, 1)] = 0.5
    min_calls: Annotated[int, read.integer(1, 100_000)] = 20
    # For how long, and how many calls then try whether it is well again.
    open_time: Annotated[float, read.duration(0.001, 86_400)] = 10.0
    half_open_calls: Annotated[int, read.integer(1, 1000)] = 2
    # How fast averages of latency and success forget.
    averaging_time: Annotated[float, read.duration(0.1, 86_400)] = 30.0
    # The pause after a rate limit that names none, and the longest that is believed.
    default_cooldown: Annotated[float, read.duration(0, 86_400)] = 5.0
    max_cooldown: Annotated[float, read.duration(0, 86_400)] = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBudgetSettings:
    """`routing.retry_budget`: retries and hedges are at most this share of the calls, plus
    `min_per_second`."""

    ratio: Annotated[float, read.number(0, 10)] = 0.2
    min_per_second: Annotated[float, read.number(0, 1e6)] = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixAffinitySettings:
    """`routing.prefix_affinity`: calls that begin alike go where the vendor has their beginning
    cached, when the price says that it pays; `false` switches it off."""

    # How long a vendor is taken to keep a prompt after its last use.
    ttl: Annotated[float, read.duration(1, 86_400)] = 300.0
    # How much is remembered by each worker, in blocks of about 512 tokens. 0: nothing; it is off.
    blocks: Annotated[int, read.integer(1, 10_000_000)] = 100_000
    # What load is worth, as a part of the prompt's price: more spreads calls more evenly.
    load: Annotated[float, read.number(0, 100)] = 0.5


NO_AFFINITY = PrefixAffinitySettings(blocks=0)


def _affinity(node: Node, context: Context) -> PrefixAffinitySettings:
    if node.kind == "bool":
        return PrefixAffinitySettings() if read.boolean(node, context) else NO_AFFINITY
    return record(PrefixAffinitySettings)(node, context)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingSettings:
    """`routing`: what holds for every model and route that does not say otherwise."""

    strategy: Annotated[str, read.choice(*STRATEGIES)] = "priority"
    max_targets: Annotated[int, read.integer(1, 20)] = 3
    balance: Annotated[BalanceSettings, record(BalanceSettings)] = BalanceSettings()
    attempts: Annotated[AttemptSettings, record(AttemptSettings)] = AttemptSettings()
    hedge: Annotated[HedgeSettings, _hedge] = NO_HEDGE
    breaker: Annotated[BreakerSettings, record(BreakerSettings)] = BreakerSettings()
    retry_budget: Annotated[RetryBudgetSettings, record(RetryBudgetSettings)] = (
        RetryBudgetSettings()
    )
    prefix_affinity: Annotated[PrefixAffinitySettings, _affinity] = NO_AFFINITY
