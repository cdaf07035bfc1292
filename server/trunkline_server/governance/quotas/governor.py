"""The one door of limits and budgets: a call is admitted, and what it took is settled.

Rules that this process decides by itself, or from leases, are decided at once; all others
together in one round trip to the shared counters (in a cluster one per tenant, model and
provider concerned, at the same time). Nothing is taken unless everything is.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence

from trunkline_server.clock import Clock
from trunkline_server.governance.quotas.balances import Balance, balances_of
from trunkline_server.governance.quotas.compiled import Compiled
from trunkline_server.governance.quotas.deciding import Decider
from trunkline_server.governance.quotas.denial import Denial
from trunkline_server.governance.quotas.desk import Desk
from trunkline_server.governance.quotas.grants import Grant
from trunkline_server.governance.quotas.leases import LeaseGate, LeasePolicy
from trunkline_server.governance.quotas.outage import Fallback, OutageModes
from trunkline_server.governance.quotas.ports import (
    Audience,
    CountersUnavailableError,
    SharedCounters,
    SpendSource,
)
from trunkline_server.governance.quotas.queueing import Lines, may_wait
from trunkline_server.governance.quotas.rulebook import RuleBook
from trunkline_server.governance.quotas.rules import Budget, Demand, Limit
from trunkline_server.governance.quotas.seeding import Seeds
from trunkline_server.governance.quotas.shared import SLOT_LEASE

__all__ = ["Governor", "Grant"]

_TICK_SECONDS = 0.5
_CENSUS_LEASE = 10.0


class Governor:
    """Limits and budgets of one process. Belongs to one event loop.

    `modes` tell what holds while `counters` are away; without counters this process is alone.
    `source` has the sums with which budgets begin, waited for up to `seed_timeout` seconds.
    """

    def __init__(
        self,
        limits: Sequence[Limit],
        budgets: Sequence[Budget],
        *,
        clock: Clock,
        audience: Audience,
        counters: SharedCounters | None = None,
        source: SpendSource | None = None,
        modes: OutageModes | None = None,
        leases: LeasePolicy | None = None,
        seed_timeout: float = 0.25,
    ) -> None:
        self.clock = clock
        self._audience = audience
        self._modes = modes or OutageModes()
        seeds = Seeds(source, clock, seed_timeout)
        self._lines = Lines(clock)
        released = self._lines.released
        self._fallback = Fallback(self._modes, clock, audience, released)
        self._desk: Desk | None = None
        if counters is not None:
            self._desk = Desk(
                counters,
                seeds,
                self._fallback,
                clock=clock,
                audience=audience,
                on_release=released,
            )
        self._decider = Decider(
            clock, self._modes, seeds, self._fallback, self._desk, queue=self._lines.behind
        )
        self._rules = RuleBook(
            clock,
            audience,
            self._desk,
            leases or LeasePolicy(),
            released,
            seeds=seeds.present,
        )
        self._task: asyncio.Task[None] | None = None
        self._away = False
        self.configure(limits, budgets)

    def configure(self, limits: Sequence[Limit], budgets: Sequence[Budget]) -> None:
        """Puts limits and budgets in force. What is unchanged keeps its counters.

        Raises ValueError if two limits or two budgets share a name.
        """
        self._rules.configure(limits, budgets)

    @property
    def asks_attempts(self) -> bool:
        """Whether `admit_attempt` has any rule to ask."""
        return bool(self._rules.of_attempts)

    @property
    def grows(self) -> bool:
        """Whether `admit_more` has any rule to ask."""
        return bool(self._rules.of_more)

    async def start(self) -> None:
        """Begins the work in the background: leases, renewals, the count of replicas."""
        if self._desk is not None:
            await self._count_replicas(self._desk)
            self._task = asyncio.get_running_loop().create_task(self._tick(self._desk))

    async def close(self, drain: float = 1.0) -> None:
        """Gives leases back and settles what is pending, within so many seconds."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._desk is not None:
            for gate in self._lease_gates():
                gate.close()
            await self._desk.settler.drain(drain)
            await self._desk.settler.close()

    def counters_changed(self, available: bool) -> None:
        """The breaker of the shared counters opened or closed."""
        if available == (not self._away) or self._desk is None:
            return
        self._away = not available
        self._audience.outage(self._away, str(self._modes))
        if available:
            for compiled in self._rules.all():
                compiled.recovered()
            self._fallback.pay(self._desk.settler)
            self._desk.settler.nudge()

    def admit(self, demand: Demand) -> Grant | Awaitable[Grant]:
        """Admits a call under all rules but those of providers.

        Raises TrunklineError, at once or when awaited: RATE_LIMIT, QUOTA_EXCEEDED, or
        SERVICE_UNAVAILABLE where the mode of an outage is to deny.
        """
        return self._admit(self._rules.of_calls, demand)

    def admit_more(self, demand: Demand) -> Grant | Awaitable[Grant]:
        """Reserves more for a call that was admitted: tokens and money, for a further attempt.
        Raises as `admit` does. The grant is settled apart."""
        return self._admit(self._rules.of_more, demand)

    def admit_attempt(self, demand: Demand) -> Grant | Awaitable[Grant]:
        """Admits one attempt under the rules of `demand.provider`; raises as `admit` does."""
        return self._admit(self._rules.of_attempts, demand)

    async def balances(
        self,
        budget: str,
        *,
        tenant: str | None,
        subject: str | None,
        after: tuple[str, str],
        limit: int,
    ) -> Sequence[Balance]:
        """What the subjects of a budget have spent in the present period, in the order of
        tenant and subject: at most `limit` of those after a pair of them that are not nothing.

        Raises CountersUnavailableError while the shared counters are away.
        """
        compiled = self._rules.budget(budget)
        if compiled is None:
            return []
        counters = None if self._desk is None else self._desk.counters
        found = await balances_of(compiled, counters, self.clock.wall())
        wanted = [
            one
            for one in found
            if (tenant is None or one.tenant == tenant)
            and (subject is None or one.subject == subject)
            and (one.tenant, one.subject) > after
            and (one.spent or one.reserved)
        ]
        return sorted(wanted, key=lambda one: (one.tenant, one.subject))[:limit]

    def _admit(self, rules: list[Compiled], demand: Demand) -> Grant | Awaitable[Grant]:
        if not rules:
            return self._decider.nothing
        outcome = self._decider.decide(rules, demand)
        if outcome.__class__ is Grant:
            return outcome
        if isinstance(outcome, Denial) and not may_wait(outcome):
            raise outcome.error(demand)
        return self._lines.pursue(self._decider, rules, demand, outcome)

    def _lease_gates(self) -> list[LeaseGate]:
        return self._rules.lease_gates()

    async def _tick(self, desk: Desk) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            ticks += 1
            for gate in self._lease_gates():
                gate.tick(self.clock.monotonic())
            if ticks % round(SLOT_LEASE / 3.0 / _TICK_SECONDS) == 0:
                desk.renew()
            if ticks % round(_CENSUS_LEASE / 4.0 / _TICK_SECONDS) == 0:
                await self._count_replicas(desk)

    async def _count_replicas(self, desk: Desk) -> None:
        with contextlib.suppress(CountersUnavailableError):
            self._fallback.replicas = await desk.counters.census(desk.replica, _CENSUS_LEASE)
            self._fallback.pay(desk.settler)
