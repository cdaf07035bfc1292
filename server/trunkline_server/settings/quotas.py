"""The configuration of limits and budgets."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated

from trunkline_server.settings import values as read
from trunkline_server.settings.problems import InvalidValueError, suggestion
from trunkline_server.settings.values import Context
from trunkline_server.settings.yaml_source import Node

# What the `match` of limits and budgets may name.
_SUBJECTS = ("key", "user", "project", "tenant", "service", "model", "provider")


def _match(node: Node, context: Context) -> dict[str, tuple[str, ...]]:
    """A map of subjects to shell patterns."""
    if node.kind != "map":
        raise InvalidValueError(f"write a map of {', '.join(_SUBJECTS)} to patterns")
    found = {}
    for name, patterns in node.entries.items():
        if name not in _SUBJECTS:
            hint = suggestion(name, _SUBJECTS) or f"; known are {', '.join(_SUBJECTS)}"
            context.report(patterns, f"is not known here{hint}")
        else:
            found[name] = read.texts(patterns, context)
    return found


def _fractions(node: Node, context: Context) -> tuple[float, ...]:
    """Shares of a whole."""
    if node.kind != "list":
        raise InvalidValueError("write a list of shares, such as [0.5, 0.9]")
    return tuple(read.number(0.001, 1)(item, context) for item in node.items)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """`limits.NAME`: how much each key, user, project, tenant or model may ask
    for, or each provider be asked for."""

    # What is counted: requests, tokens, or calls at the same time.
    measure: Annotated[str, read.choice("requests", "tokens", "concurrency")]
    # Whom it counts for.
    scope: Annotated[str, read.choice("key", "user", "project", "tenant", "model", "provider")]
    # How much in each `per`; for concurrency, how many at the same time.
    amount: Annotated[int, read.integer(1)]
    per: Annotated[str, read.choice("second", "minute", "hour", "day")] = "minute"
    # How much may be taken at once. None: the amount.
    burst: Annotated[int | None, read.integer(1)] = None
    # Shell patterns that say which calls it counts. Empty: all.
    match: Annotated[dict[str, tuple[str, ...]], _match] = field(default_factory=dict)
    # exact asks Redis at every call; leased takes shares ahead, and may exceed by them.
    mode: Annotated[str, read.choice("exact", "leased")] = "exact"
    # A call that finds no room waits so long, if fewer than max_waiting wait already.
    max_wait: Annotated[float, read.duration(0, 3600)] = 0.0
    max_waiting: Annotated[int, read.integer(1, 1_000_000)] = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSettings:
    """`budgets.NAME`: how much each key, project, tenant or service may spend,
    or be spent at each provider."""

    # Whom it counts for.
    scope: Annotated[str, read.choice("key", "project", "tenant", "service", "provider")]
    # US dollars in each period.
    amount: Annotated[Decimal, read.dollars]
    # Days and months are those of UTC; rolling looks back over `window`.
    period: Annotated[str, read.choice("daily", "monthly", "rolling")] = "monthly"
    window: Annotated[float, read.duration(0)] = 0.0
    # Shares of the amount that are told of, once in a period, when they are spent.
    thresholds: Annotated[tuple[float, ...], _fractions] = ()
    # As for limits.
    match: Annotated[dict[str, tuple[str, ...]], _match] = field(default_factory=dict)
    mode: Annotated[str, read.choice("exact", "leased")] = "exact"
