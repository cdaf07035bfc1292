"""What budgets have left, as the control plane lists it."""

from collections.abc import Sequence

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.quotas.governor import Governor
from trunkline_server.governance.quotas.ports import CountersUnavailableError
from trunkline_server.rpc.admin.ports import Balance


class BudgetBalances:
    """A governor's balances; a rpc.admin.ports.Balances.

    With shared counters those of all replicas, else those of this process: of who has spent
    since it began.
    """

    def __init__(self, governor: Governor) -> None:
        self._governor = governor

    async def balances(
        self,
        budget: str,
        *,
        tenant: str | None,
        subject: str | None,
        after: tuple[str, str],
        limit: int,
    ) -> Sequence[Balance]:
        """As rpc.admin.ports.Balances. Raises SERVICE_UNAVAILABLE while the shared counters
        are away."""
        try:
            found = await self._governor.balances(
                budget, tenant=tenant, subject=subject, after=after, limit=limit
            )
        except CountersUnavailableError:
            raise TrunklineError(
                v1.ERROR_REASON_SERVICE_UNAVAILABLE, "the shared counters of budgets are away"
            ) from None
        return [
            Balance(
                tenant=one.tenant,
                subject=one.subject,
                start=round(one.start * 1e6),
                end=None if one.end is None else round(one.end * 1e6),
                amount=one.amount,
                spent=one.spent,
                reserved=one.reserved,
            )
            for one in found
        ]
