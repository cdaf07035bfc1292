"""The configuration of the answer cache."""

from dataclasses import dataclass, field
from typing import Annotated

from trunkline_server.settings import values as read
from trunkline_server.settings.records import map_of, record


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRuleSettings:
    """`cache.models.NAME` and `cache.routes.NAME`. None: as `cache` says."""

    use: Annotated[str | None, read.choice("off", "asked", "on")] = None
    ttl: Annotated[float | None, read.duration(1)] = None
    max_ttl: Annotated[float | None, read.duration(1)] = None
    max_temperature: Annotated[float | None, read.number(0, 2)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """`cache`: exact answers, kept for the tenant or the key that they were given to."""

    # Whose calls use it: off, nobody's; asked, those that name a lifetime, REFRESH or
    # ONLY_IF_CACHED in their `cache`; on, all that may.
    use: Annotated[str, read.choice("off", "asked", "on")] = "off"
    # How long an answer is kept, and the longest that a call may ask for.
    ttl: Annotated[float, read.duration(1)] = 3_600.0
    max_ttl: Annotated[float, read.duration(1)] = 86_400.0
    # Calls above it go without the cache unless they ask for it; a call that names no
    # temperature counts as 1.
    max_temperature: Annotated[float, read.number(0, 2)] = 0.0
    # What each worker's memory may hold in all, and of that what one tenant may.
    memory: Annotated[int, read.size(2**16, 2**40)] = 64 * 2**20
    tenant_share: Annotated[float, read.number(0.01, 1)] = 1.0
    # Larger answers are not kept.
    max_entry: Annotated[int, read.size(2**10, 2**28)] = 2**20
    # Whether Redis, as in state.redis, is the second level, which all workers and replicas share.
    shared: Annotated[bool, read.boolean] = False
    # What is different for a model, by its public name, and for a route, by the NAME in
    # route:NAME.
    models: Annotated[dict[str, CacheRuleSettings], map_of(record(CacheRuleSettings))] = field(
        default_factory=dict
    )
    routes: Annotated[dict[str, CacheRuleSettings], map_of(record(CacheRuleSettings))] = field(
        default_factory=dict
    )
