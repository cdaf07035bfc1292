"""One strategy, one file; this is the table of them."""

from collections.abc import Mapping
from typing import Any

from trunkline import v1
from trunkline_server.routing.strategies.balanced import Balanced
from trunkline_server.routing.strategies.base import Strategy
from trunkline_server.routing.strategies.feature_based import FeatureBased
from trunkline_server.routing.strategies.highest_availability import HighestAvailability
from trunkline_server.routing.strategies.least_latency import LeastLatency
from trunkline_server.routing.strategies.lowest_cost import LowestCost
from trunkline_server.routing.strategies.priority import Priority
from trunkline_server.routing.strategies.round_robin import RoundRobin
from trunkline_server.routing.strategies.weighted import Weighted

# What each strategy prepares is its own affair: hence Any.
STRATEGIES: Mapping[v1.Strategy.ValueType, Strategy[Any]] = {
    v1.STRATEGY_PRIORITY: Priority(),
    v1.STRATEGY_WEIGHTED: Weighted(),
    v1.STRATEGY_ROUND_ROBIN: RoundRobin(),
    v1.STRATEGY_LOWEST_COST: LowestCost(),
    v1.STRATEGY_LEAST_LATENCY: LeastLatency(),
    v1.STRATEGY_HIGHEST_AVAILABILITY: HighestAvailability(),
    v1.STRATEGY_FEATURE_BASED: FeatureBased(),
    v1.STRATEGY_BALANCED: Balanced(),
}
