"""Limits and budgets as they are declared, and what a call demands of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import ceil, isfinite

# Fields of a Demand that rules are scoped by and match on.
SCOPES = ("key", "user", "project", "tenant", "service", "model", "provider")
# Scopes whose subjects belong to one tenant; a model or a provider is shared by all.
TENANT_SCOPES = frozenset({"key", "user", "project", "tenant", "service"})
LIMIT_SCOPES = frozenset({"key", "user", "project", "tenant", "model", "provider"})
BUDGET_SCOPES = frozenset({"key", "project", "tenant", "service", "provider"})

SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
# Lua counts in doubles, which hold every integer up to this one.
MAX_NANOS = 2**53 - 1
_ROLLING_STEPS = 30


class Measure(Enum):
    """What a limit counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENCY = "concurrency"


class Mode(Enum):
    """How replicas share a limit or a budget.

    EXACT asks the shared counters at every call. LEASED takes shares ahead and decides from
    memory; how far it may overshoot is told by `leases`. Without shared counters both are
    exact in this process.
    """

    EXACT = "exact"
    LEASED = "leased"


class OnOutage(Enum):
    """What holds while the shared counters are away.

    LOCAL: each replica enforces its share, the amount divided by the replicas last counted.
    DENY: calls under such a rule fail with SERVICE_UNAVAILABLE. ALLOW: they pass.
    """

    LOCAL = "local"
    DENY = "deny"
    ALLOW = "allow"


class Period(Enum):
    """When a budget begins anew: at midnight or on the first of the month, UTC, or never, its
    window rolling on."""

    DAILY = "daily"
    MONTHLY = "monthly"
    ROLLING = "rolling"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit for every subject of a scope: each key, each user, ...

    `amount` is per `per` for requests and tokens, and at the same time for concurrency, which
    ignores `per` and `burst`. `burst` is how much may be taken at once, by default `amount`.
    `match` maps fields of a demand to shell patterns, one of which must match; a demand whose
    scope field is empty is not limited. A call that finds no room waits up to `max_wait`
    seconds, in order of arrival, if fewer than `max_waiting` wait already.
    """

    name: str
    measure: Measure
    scope: str
    amount: int
    per: str = "minute"
    burst: int | None = None
    match: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mode: Mode = Mode.EXACT
    max_wait: float = 0.0
    max_waiting: int = 100

    def __post_init__(self) -> None:
        _check_common(self.name, self.scope, LIMIT_SCOPES, self.match)
        _require(self.amount > 0, "amount", "must be positive")
        _require(self.per in SECONDS, "per", f"is none of {', '.join(SECONDS)}")
        _require(self.burst is None or self.burst > 0, "burst", "must be positive")
        _require(isfinite(self.max_wait) and self.max_wait >= 0, "max_wait", "must be 0 or more")
        _require(self.max_waiting > 0, "max_waiting", "must be positive")
        waits = self.max_wait > 0 and self.scope == "provider"
        _require(not waits, "max_wait", "is not for providers: one without room is passed over")

    @property
    def interval(self) -> float:
        """Seconds per unit."""
        return SECONDS[self.per] / self.amount

    @property
    def capacity(self) -> int:
        """How much may be taken at once."""
        if self.measure is Measure.CONCURRENCY or self.burst is None:
            return self.amount
        return self.burst


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A hard cap on the spend of every subject of a scope.

    `amount` is nanos of USD per period. `window` is the seconds of a rolling one, cut into
    steps of which the oldest counts in full until it has left the window. `thresholds` are
    fractions of the amount, each announced once per period when the settled spend passes it.
    `match` is as for limits.
    """

    name: str
    scope: str
    amount: int
    period: Period = Period.MONTHLY
    window: int = 0
    thresholds: tuple[float, ...] = ()
    match: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mode: Mode = Mode.EXACT
    # Seconds per step of a rolling window, and its steps; 0 steps for calendar periods. Asked for
    # several times a call, so computed once.
    step: int = field(init=False, repr=False, compare=False)
    steps: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", max(1, ceil(self.window / _ROLLING_STEPS)))
        object.__setattr__(self, "steps", ceil(self.window / self.step))
        _check_common(self.name, self.scope, BUDGET_SCOPES, self.match)
        _require(0 < self.amount <= MAX_NANOS, "amount", f"must be within 1 and {MAX_NANOS} nanos")
        rolling = self.period is Period.ROLLING
        _require(self.window > 0 if rolling else self.window == 0, "window", "is for rolling ones")
        in_range = all(0.0 < one <= 1.0 for one in self.thresholds)
        _require(in_range, "thresholds", "must be above 0 and at most 1")


@dataclass(slots=True)
class Demand:
    """What one call asks for: who, which model, and the worst it can consume.

    Empty fields are unknown, and rules scoped by them do not apply. `provider` is set only
    for the admission of one attempt. `tokens` and `cost` (nanos of USD) are the worst case;
    `deadline` is in monotonic seconds.
    """

    key: str = ""
    user: str = ""
    project: str = ""
    tenant: str = ""
    service: str = ""
    model: str = ""
    provider: str = ""
    tokens: int = 0
    cost: int = 0
    deadline: float = float("inf")


def _check_common(
    name: str, scope: str, scopes: frozenset[str], match: Mapping[str, tuple[str, ...]]
) -> None:
    _require(bool(name), "name", "is empty")
    _require(scope in scopes, "scope", f"is none of {', '.join(sorted(scopes))}")
    for key, patterns in match.items():
        _require(key in SCOPES, f"match.{key}", f"is none of {', '.join(SCOPES)}")
        unknown = key == "provider" and scope != "provider"
        _require(not unknown, "match.provider", "is known to rules of providers alone")
        _require(bool(patterns), f"match.{key}", "has no pattern")


def _require(condition: bool, name: str, problem: str) -> None:
    if not condition:
        raise ValueError(f"{name} {problem}")
