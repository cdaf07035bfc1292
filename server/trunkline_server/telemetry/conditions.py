"""What is amiss while calls are answered: the degraded modes, read off their metrics.

A supervisor has its workers' metrics and nothing else of them, so both ways of serving read
the same.
"""

from prometheus_client import CollectorRegistry

JOURNAL = "trunkline_ledger_blocked"
# What a metric that is not 0 means.
_MEANS = {
    "trunkline_quota_outage": "the shared counters of limits and budgets are away",
    JOURNAL: "the usage journal cannot be written",
    "trunkline_store_away": "the store of resources is away",
    "trunkline_ledger_away": "the ledger's database is away",
}


def conditions(registry: CollectorRegistry) -> dict[str, str]:
    """What is amiss now, in words, by the metric that says so."""
    found = {
        sample.name
        for family in registry.collect()
        for sample in family.samples
        if sample.name in _MEANS and sample.value
    }
    return {name: text for name, text in _MEANS.items() if name in found}
