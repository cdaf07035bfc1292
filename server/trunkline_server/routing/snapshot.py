"""The immutable routing table, and how a requested model finds its route in it."""

import difflib
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.routing.lru import Lru
from trunkline_server.routing.pricing import Price

if TYPE_CHECKING:
    from trunkline_server.routing.pools import Pool, PoolKey, RouteIndex

ROUTE_PREFIX = "route:"

# Bounds of the memos. Pools are weighed by their members; one member costs about 100 bytes
# with all that strategies prepare for it.
_POOLED_MEMBERS = 200_000
_PASSTHROUGHS = 1_024
_INDEXES = 4_096

# Names longer than this are cut in messages and not compared with others.
_NAME_LIMIT = 128
# Comparing a name takes about 10 us; so many neighbours on each side are compared.
_NEIGHBOURS = 64

_SECONDS_PER_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Deployment:
    """One provider's model in one region. `slot` is its row in the HealthTable."""

    slot: int
    name: str
    provider: str
    provider_model: str
    model: str  # Its public model name.
    region: str = ""
    residency: frozenset[str] = frozenset()  # Lower case.
    capabilities: frozenset[str] = frozenset()
    context_tokens: int = 0  # 0: unknown.
    max_output_tokens: int = 0  # 0: unknown.
    price: Price | None = None
    quality: float = 0.0
    priority: int = 0  # The lowest goes first.
    weight: float = 1.0  # 0: only when nothing else is left.
    enabled: bool = True
    dialect: str = ""  # Empty: as the catalogue says of the model.
    drained: bool = False  # It would be enabled, but for that.

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise ValueError(f"{self.name}: a weight is a finite number, zero or more")


@dataclass(frozen=True, slots=True)
class HedgePolicy:
    """When a second attempt starts beside the first: after `percentile` of its latencies."""

    percentile: float = 0.95
    min_delay: float = 0.05  # Seconds.


@dataclass(frozen=True, slots=True)
class AttemptPolicy:
    """How the targets of a plan are tried; the attempt loop reads it. Times are seconds."""

    retries: int = 1  # Per target.
    backoff_base: float = 0.1  # Full jitter.
    backoff_max: float = 2.0
    attempt_timeout: float = 0.0  # A whole unary attempt; 0: only the caller's deadline.
    first_byte_timeout: float = 0.0  # Streams; 0: only the caller's deadline.
    idle_timeout: float = 60.0  # Streams: the longest silence.
    hedge: HedgePolicy | None = None


@dataclass(frozen=True, slots=True)
class BalanceWeights:
    """How much each ingredient of the balanced strategy counts."""

    cost: float = 0.4
    latency: float = 0.3
    availability: float = 0.2
    quality: float = 0.1


@dataclass(frozen=True, slots=True)
class Route:
    """A policy over deployments. The name is empty for a model without a route of its own."""

    name: str
    strategy: v1.Strategy.ValueType
    members: tuple[Deployment, ...]
    max_targets: int = 3
    balance: BalanceWeights = BalanceWeights()
    attempts: AttemptPolicy = AttemptPolicy()

    def __post_init__(self) -> None:
        if self.max_targets < 1:
            raise ValueError(f"route {self.name!r}: max_targets is at least 1")


@dataclass(frozen=True, slots=True)
class ProviderTemplate:
    """What the deployment for a `provider/model` request is made from.

    All such requests to one provider share its health row. `price_of` takes the vendor's
    model id.
    """

    name: str
    slot: int
    region: str
    residency: frozenset[str]
    capabilities: frozenset[str]
    price_of: Callable[[str], Price | None]
    enabled: bool = True


class Snapshot:
    """One version of the routing table.

    What it answers never changes: its memos only remember. Prices are those of `built_at`
    (Unix seconds); `next_price_change` says when a new snapshot is due on their account.
    `slots` is how many health rows its deployments and providers need.
    """

    def __init__(  # noqa: PLR0917 - the parts of the table, each of its own type.
        self,
        version: str,
        deployments: Sequence[Deployment],
        models: Mapping[str, Route],
        routes: Mapping[str, Route],
        providers: Mapping[str, ProviderTemplate],
        built_at: float,
    ) -> None:
        self.version = version
        self.deployments = tuple(deployments)
        self.models = dict(models)
        self.routes = dict(routes)
        self.providers = dict(providers)
        self.built_at = built_at
        rows: list[Deployment | ProviderTemplate] = [*self.deployments, *self.providers.values()]
        self.slots = 1 + max([row.slot for row in rows], default=-1)
        self.capabilities = frozenset(name for row in rows for name in row.capabilities)
        self.provider_names = frozenset(row.provider for row in self.deployments) | frozenset(
            self.providers
        )
        self.pools: Lru[PoolKey, Pool] = Lru(_POOLED_MEMBERS)
        self.indexes: Lru[str, RouteIndex] = Lru(max(_INDEXES, 2 * len(self.models)))
        self._passthroughs: Lru[str, Route] = Lru(_PASSTHROUGHS)
        # What explanations say of each deployment, whatever the call: by strategy and name.
        self.cards: defaultdict[int, dict[str, v1.Candidate]] = defaultdict(dict)
        self._whole = Route("", v1.STRATEGY_BALANCED, self.deployments)

    def resolve(self, model: str, visible: Collection[str] | None = None) -> Route:
        """The route of a requested model.

        That is a public name, "route:NAME", "provider/model", or empty for all deployments.
        Public names win. Raises MODEL_NOT_FOUND, naming near matches among the names that
        are `visible` (None: all).
        """
        route = self.models.get(model)
        if route is not None:
            return route
        if not model:
            return self._whole
        if model.startswith(ROUTE_PREFIX):
            route = self.routes.get(model.removeprefix(ROUTE_PREFIX))
        elif "/" in model:
            route = self._passthroughs.get(model) or self._passthrough(model)
        if route is None:
            raise self._not_found(model, visible)
        return route

    def _passthrough(self, model: str) -> Route | None:
        provider, _, provider_model = model.partition("/")
        template = self.providers.get(provider)
        if template is None or not provider_model or len(model) > 4 * _NAME_LIMIT:
            return None
        deployment = Deployment(
            slot=template.slot,
            name=model,
            provider=template.name,
            provider_model=provider_model,
            model=model,
            region=template.region,
            residency=template.residency,
            capabilities=template.capabilities,
            price=template.price_of(provider_model),
            enabled=template.enabled,
        )
        route = Route("", v1.STRATEGY_PRIORITY, (deployment,))
        self._passthroughs.put(model, route)
        return route

    def _not_found(self, model: str, visible: Collection[str] | None) -> TrunklineError:
        known: list[str] = []
        if model.startswith(ROUTE_PREFIX):
            known = [ROUTE_PREFIX + name for name in self.routes]
        else:
            known = [name for name in self.models if visible is None or name in visible]
            provider, slash, rest = model.partition("/")
            if slash and len(model) <= _NAME_LIMIT:
                known += [f"{name}/{rest}" for name in near(provider, self.providers)]
        matches = ", ".join(near(model, known))
        name = model[:_NAME_LIMIT]
        hint = f"; did you mean {matches}?" if matches else ""
        return TrunklineError(
            v1.ERROR_REASON_MODEL_NOT_FOUND,
            f"no model or route is called {name!r}{hint}",
            metadata={"model": name, "near": matches} if matches else {"model": name},
        )

    def next_price_change(self) -> float | None:
        """When a price stops being that of `built_at`, in Unix seconds; None: never."""
        today = self.built_at - self.built_at % _SECONDS_PER_DAY
        changes: set[float] = set()
        for price in {row.price for row in self.deployments}:
            for version in () if price is None else price.versions:
                if version.start is not None:
                    changes.add(version.start)
                for edge in version.daily or ():
                    changes.update((today + edge, today + edge + _SECONDS_PER_DAY))
        return min((change for change in changes if change > self.built_at), default=None)


def near(name: str, known: Iterable[str]) -> list[str]:
    """Up to three known names that resemble a name, the closest first.

    Of many names only the neighbours in the alphabet are compared, read forwards and
    backwards: comparing ten thousand would take a tenth of a second.
    """
    if len(name) > _NAME_LIMIT:
        return []
    names = sorted(known)
    if len(names) > 4 * _NEIGHBOURS:
        backwards = sorted(text[::-1] for text in names)
        alike = _around(names, name) + [text[::-1] for text in _around(backwards, name[::-1])]
        names = sorted(set(alike))
    return difflib.get_close_matches(name, names, n=3)


def _around(names: Sequence[str], name: str) -> list[str]:
    middle = bisect_left(names, name)
    return list(names[max(middle - _NEIGHBOURS, 0) : middle + _NEIGHBOURS])
