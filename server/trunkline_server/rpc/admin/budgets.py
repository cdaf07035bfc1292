"""BudgetService: budgets, and what is left of them."""

from trunkline.admin import v1 as admin
from trunkline_server import pages
from trunkline_server.errors import invalid
from trunkline_server.rpc.admin.calls import Call
from trunkline_server.rpc.admin.crud import crud
from trunkline_server.rpc.admin.handlers import Methods
from trunkline_server.rpc.admin.kinds import BUDGETS
from trunkline_server.rpc.admin.ports import Balance, Balances
from trunkline_server.rpc.admin.resources import ResourceEngine


class Budgets:
    """BudgetService."""

    def __init__(self, engine: ResourceEngine, balances: Balances) -> None:
        self._engine = engine
        self._balances = balances

    def methods(self) -> Methods:
        """BudgetService."""
        return {**crud(self._engine, BUDGETS), "ListBudgetBalances": self._list_balances}

    async def _list_balances(
        self, call: Call, request: admin.ListBudgetBalancesRequest
    ) -> admin.ListBudgetBalancesResponse:
        if not request.budget:
            raise invalid("budget", "is empty")
        call.permit("admin.budgets.read", f"budgets/{request.budget}", request.tenant)
        size = pages.size_of(request.page_size)
        question = ("balances", request.budget, request.tenant, request.subject)
        tenant, subject = pages.read_token(request.page_token, *question) or ("", "")
        await self._engine.find(BUDGETS, request.budget)
        found = await self._balances.balances(
            request.budget,
            tenant=request.tenant or None,
            subject=request.subject or None,
            after=(tenant, subject),
            limit=size + 1,
        )
        page = found[:size]
        token = ""
        if len(found) > size:
            token = pages.write_token((page[-1].tenant, page[-1].subject), *question)
        return admin.ListBudgetBalancesResponse(
            balances=[_told(request.budget, each) for each in page], next_page_token=token
        )


def _told(budget: str, balance: Balance) -> admin.BudgetBalance:
    told = admin.BudgetBalance(
        budget=budget,
        tenant=balance.tenant,
        subject=balance.subject,
        amount_nanos=balance.amount,
        spent_nanos=balance.spent,
        reserved_nanos=balance.reserved,
        remaining_nanos=balance.amount - balance.spent - balance.reserved,
    )
    told.start_time.FromMicroseconds(balance.start)
    if balance.end is not None:
        told.end_time.FromMicroseconds(balance.end)
    return told
