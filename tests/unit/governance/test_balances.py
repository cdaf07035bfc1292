"""What budgets have left, as this process tells it."""

from tests.unit.governance.world import DAY, MARCH, SetClock, admit, demand, governor
from trunkline_server.governance.quotas.balances import Balance
from trunkline_server.governance.quotas.governor import Governor
from trunkline_server.governance.quotas.rules import Budget, Period


async def listed(
    door: Governor,
    *,
    tenant: str | None = None,
    subject: str | None = None,
    after: tuple[str, str] = ("", ""),
    limit: int = 100,
) -> list[Balance]:
    found = await door.balances("b", tenant=tenant, subject=subject, after=after, limit=limit)
    return list(found)


async def test_balances_tell_what_is_spent_and_what_is_held() -> None:
    door = governor(SetClock(), Budget(name="b", scope="project", amount=1000))
    admit(door, demand(cost=100)).settle(0, 30)
    admit(door, demand(cost=200))
    (told,) = await listed(door)
    assert told == Balance(
        tenant="t1",
        subject="p1",
        start=MARCH,
        end=MARCH + 31 * DAY,
        amount=1000,
        spent=30,
        reserved=200,
    )


async def test_balances_are_paged_and_filtered() -> None:
    door = governor(SetClock(), Budget(name="b", scope="project", amount=1000))
    for tenant in ("t2", "t1"):
        for project in ("p3", "p1", "p2"):
            admit(door, demand(tenant=tenant, project=project, cost=10)).settle(0, 1)
    pairs = [(one.tenant, one.subject) for one in await listed(door)]
    assert pairs == [(tenant, project) for tenant in ("t1", "t2") for project in ("p1", "p2", "p3")]
    page = await listed(door, after=("t1", "p2"), limit=2)
    assert [(one.tenant, one.subject) for one in page] == [("t1", "p3"), ("t2", "p1")]
    assert [one.subject for one in await listed(door, tenant="t2", subject="p2")] == ["p2"]


async def test_nothing_and_the_past_and_the_unknown_are_not_listed() -> None:
    clock = SetClock()
    door = governor(clock, Budget(name="b", scope="tenant", amount=1000, period=Period.DAILY))
    admit(door, demand(cost=10)).settle(0, 10)
    admit(door, demand(tenant="idle", cost=10)).cancel()
    assert [one.subject for one in await listed(door)] == ["t1"]
    clock.advance(DAY)
    assert await listed(door) == []
    found = await door.balances("c", tenant=None, subject=None, after=("", ""), limit=9)
    assert list(found) == []


async def test_orphans_and_what_has_left_the_window_do_not_count() -> None:
    clock = SetClock()
    budget = Budget(name="b", scope="tenant", amount=1000, period=Period.ROLLING, window=600)
    door = governor(clock, budget)
    admit(door, demand(cost=10, deadline=clock.now + 5)).settle(0, 7)
    admit(door, demand(cost=90, deadline=clock.now + 5))
    clock.advance(60)
    (told,) = await listed(door)
    assert (told.spent, told.reserved, told.end) == (7, 0, None)
    clock.advance(700)
    assert await listed(door) == []
