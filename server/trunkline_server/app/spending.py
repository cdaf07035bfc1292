"""What the ledger knows of spend, as budgets ask for it when their counters begin."""

from collections.abc import Mapping, Sequence

from trunkline.admin import v1 as admin
from trunkline_server.governance.quotas.compiled import matches
from trunkline_server.ledger.queries import Dimension, UsageFilter, UsageQuery, UsageRow
from trunkline_server.store.usage_sql import UsageTable

# A field of a demand, and where the ledger keeps it. What a caller did not say of the model
# was chosen by the router, and a caller without a service goes by the agent it names.
_KEPT: Mapping[str, tuple[Dimension, ...]] = {
    "key": (Dimension.KEY,),
    "user": (Dimension.USER,),
    "project": (Dimension.PROJECT,),
    "tenant": (Dimension.TENANT,),
    "service": (Dimension.SERVICE, Dimension.AGENT),
    "model": (Dimension.REQUESTED_MODEL, Dimension.MODEL),
    "provider": (Dimension.PROVIDER,),
}
_MICROSECONDS = 1e6


class LedgerSums:
    """The ledger's sums; a governance.quotas.ports.SpendSource."""

    def __init__(self, usage: UsageTable) -> None:
        self._usage = usage

    async def spent(
        self,
        scope: str,
        tenant: str,
        subject: str,
        starts: Sequence[float],
        end: float,
        *,
        match: Mapping[str, Sequence[str]],
    ) -> list[int]:
        """As governance.quotas.ports.SpendSource. Spend at a provider is that of attempts, any
        other that of calls."""
        of_attempts = scope == "provider" or "provider" in match
        group_by = [dimension for name in match for dimension in _KEPT[name]]
        # Rolling windows have equal steps, which begin at multiples of themselves.
        width = starts[1] - starts[0] if len(starts) > 1 else 0.0
        sums = dict.fromkeys((round(start * _MICROSECONDS) for start in starts), 0)
        first = next(iter(sums))
        for among in _subjects(scope, tenant, subject):
            where = UsageFilter(
                kind=admin.USAGE_EVENT_KIND_ATTEMPT if of_attempts else admin.USAGE_EVENT_KIND_CALL,
                start_us=first,
                end_us=round(end * _MICROSECONDS),
                among=among,
            )
            query = UsageQuery(where, group_by, bucket_us=round(width * _MICROSECONDS))
            for row in await self._usage.summarize(query):
                if _counts(match, group_by, row):
                    sums[row.bucket_us if width else first] += row.cost_total_nanos
        return list(sums.values())


def _subjects(scope: str, tenant: str, subject: str) -> list[dict[Dimension, tuple[str, ...]]]:
    """The filters that together are a subject's events."""
    if scope == "provider":
        return [{Dimension.PROVIDER: (subject,)}]
    if scope == "tenant":
        return [{Dimension.TENANT: (subject,)}]
    mine = {Dimension.TENANT: (tenant,)}
    if scope == "service":
        return [
            {**mine, Dimension.SERVICE: (subject,)},
            {**mine, Dimension.SERVICE: ("",), Dimension.AGENT: (subject,)},
        ]
    return [{**mine, _KEPT[scope][0]: (subject,)}]


def _counts(
    match: Mapping[str, Sequence[str]], group_by: Sequence[Dimension], row: UsageRow
) -> bool:
    """Whether a group's events are among those that a budget counts."""
    values = dict(zip(group_by, row.group, strict=True))
    return all(
        matches(patterns, next((values[each] for each in _KEPT[name] if values[each]), ""))
        for name, patterns in match.items()
    )
