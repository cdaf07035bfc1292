"""Every scenario, in the order of the report."""

from bench.scenarios import (
    batch,
    cache,
    capacity,
    faults,
    latency,
    peers,
    scale,
    state,
    stream,
    unary,
)
from bench.scenarios.base import Scenario

SCENARIOS: tuple[Scenario, ...] = (
    *unary.SCENARIOS,
    *state.SCENARIOS,
    *cache.SCENARIOS,
    *batch.SCENARIOS,
    *stream.SCENARIOS,
    *latency.SCENARIOS,
    *faults.SCENARIOS,
    *scale.SCENARIOS,
    *capacity.SCENARIOS,
    *peers.SCENARIOS,
)
