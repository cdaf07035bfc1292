"""Every scenario, in the order of the report."""

from bench.scenarios import unary
from bench.scenarios.base import Scenario

SCENARIOS: tuple[Scenario, ...] = (*unary.SCENARIOS,)
