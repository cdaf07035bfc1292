"""Admission by the shared counters: claims of one call, decided together and settled later."""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from trunkline_server.clock import Clock
from trunkline_server.governance.quotas.compiled import Compiled
from trunkline_server.governance.quotas.denial import Denial
from trunkline_server.governance.quotas.gates import Subject
from trunkline_server.governance.quotas.outage import Fallback, LocalPart
from trunkline_server.governance.quotas.periods import turn_of
from trunkline_server.governance.quotas.ports import (
    PERIOD_END,
    Admission,
    Audience,
    Claim,
    CountersUnavailableError,
    MarkOnce,
    SharedCounters,
    SlotClaim,
    SpendClaim,
    SpendSettlement,
)
from trunkline_server.governance.quotas.rules import Budget, Demand, Limit
from trunkline_server.governance.quotas.seeding import Seeds
from trunkline_server.governance.quotas.settling import Settler
from trunkline_server.governance.quotas.shared import SLOT_LEASE, SharedBudget, by_tag, renewal

Wanted = list[tuple[Compiled, Subject]]
_MAX_REMEMBERED = 10_000


@dataclass(slots=True, eq=False)
class Taken:
    """What a call holds of one shared rule."""

    compiled: Compiled
    subject: Subject
    claim: Claim
    holder: str
    bucket: int = 0
    generation: str = ""


@dataclass(slots=True)
class Parts:
    """What a call holds: of this process, and of the shared counters."""

    local: list[LocalPart]
    shared: list[Taken]


class Desk:
    """Asks the shared counters, and falls back while they are away."""

    def __init__(
        self,
        counters: SharedCounters,
        seeds: Seeds,
        fallback: Fallback,
        *,
        clock: Clock,
        audience: Audience,
        on_release: Callable[[Limit, Subject], None],
    ) -> None:
        self.replica = secrets.token_hex(6)
        self.counters = counters
        self.settler = Settler(counters, clock, self.replica, audience.settlements_lost)
        self.clock = clock
        self.released = on_release
        self._seeds = seeds
        self._fallback = fallback
        self._audience = audience
        self._calls = 0
        self._slots: set[Taken] = set()
        self._announced: dict[str, int] = {}  # Thresholds, by the mark of a counter's period.

    def holder(self) -> str:
        """A name for what one call takes."""
        self._calls += 1
        return f"{self.replica}{self._calls:x}"

    async def admit(self, wanted: Wanted, demand: Demand) -> Parts | Denial:
        """Takes from all rules or none. Raises TrunklineError where the mode of an outage is
        to deny."""
        now, wall = self.clock.monotonic(), self.clock.wall()
        takings = []
        holder = self.holder()
        for compiled, subject in wanted:
            if compiled.shared is not None:
                claim = compiled.shared.claim(subject, demand, now, wall)
                takings.append(Taken(compiled, subject, claim, holder))
        groups = [
            [takings[place] for place in places]
            for places in by_tag([one.claim for one in takings], self.counters.clustered)
        ]
        if len(groups) == 1:
            return await self._admit_group(groups[0], demand)
        return await self._admit_groups(groups, demand)

    def finish(self, taken: Taken, tokens: int, cost: int) -> None:
        """The call is over, having consumed this."""
        shared, claim = taken.compiled.shared, taken.claim
        if isinstance(shared, SharedBudget) and isinstance(claim, SpendClaim):
            done = shared.settlement(claim, taken.holder, taken.bucket, taken.generation, cost)
            self.settle_spend(shared, taken.subject, done)
        elif shared is not None and not isinstance(shared, SharedBudget):
            operation = shared.close(claim, taken.holder, tokens)
            if operation is not None:
                self.settler.put(operation, self._freed(taken))

    def undo(self, taken: Taken) -> None:
        """The call did not take place."""
        shared, claim = taken.compiled.shared, taken.claim
        if isinstance(shared, SharedBudget):
            self.finish(taken, 0, 0)
        elif shared is not None:
            self.settler.put(shared.undo(claim, taken.holder), self._freed(taken))

    def settle_spend(
        self, shared: SharedBudget, subject: Subject, settlement: SpendSettlement
    ) -> None:
        """Settles, and announces the thresholds that this passes."""
        heard = None
        if shared.thresholds and settlement.truth:
            heard = partial(self._spent, shared, subject, settlement.key)
        self.settler.put(settlement, heard)

    async def admit_spend(
        self, shared: SharedBudget, subject: Subject, claim: SpendClaim, holder: str
    ) -> Admission:
        """Decides one claim of a budget. Raises CountersUnavailableError."""
        admission = await self.counters.admit(holder, [claim])
        if admission.unseeded:
            await self._seed(shared, subject, claim)
            admission = await self.counters.admit(holder, [claim])
        for used, _ in admission.spends:
            self._fallback.remember(claim.key, used)
        return admission

    def renew(self) -> None:
        """Keeps the slots of running calls from expiring."""
        for taken in self._slots:
            operation = renewal(taken.claim, taken.holder, 0, SLOT_LEASE)
            if operation is not None:
                self.settler.put(operation)

    async def _admit_groups(self, groups: list[list[Taken]], demand: Demand) -> Parts | Denial:
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._admit_group(group, demand)) for group in groups]
        try:
            outcomes = await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Parts):
                    self._undo_parts(result)
            raise
        granted = [one for one in outcomes if isinstance(one, Parts)]
        denials = [one for one in outcomes if isinstance(one, Denial)]
        if denials:
            for parts in granted:
                self._undo_parts(parts)
            return max(denials, key=Denial.weight)
        return Parts(
            [one for parts in granted for one in parts.local],
            [one for parts in granted for one in parts.shared],
        )

    async def _admit_group(self, group: list[Taken], demand: Demand) -> Parts | Denial:
        wanted = [(taken.compiled, taken.subject) for taken in group]
        if not self.counters.reachable(group[0].claim.key):
            return self._fall_back(wanted, demand)
        try:
            admission = await self._ask(group)
        except CountersUnavailableError:
            self._take_back(group)
            return self._fall_back(wanted, demand)
        except BaseException:
            self._take_back(group)
            raise
        if admission.denied is not None:
            denier = group[admission.denied]
            return Denial(denier.compiled.rule, denier.subject, self._wait(denier, admission))
        return Parts([], self._keep(group, admission))

    async def _ask(self, group: Sequence[Taken]) -> Admission:
        holder, claims = group[0].holder, [taken.claim for taken in group]
        admission = await self.counters.admit(holder, claims)
        if not admission.unseeded:
            return admission
        seeding = []
        for place in admission.unseeded:
            shared, claim = group[place].compiled.shared, claims[place]
            if isinstance(shared, SharedBudget) and isinstance(claim, SpendClaim):
                seeding.append(self._seed(shared, group[place].subject, claim))
        await asyncio.gather(*seeding)
        return await self.counters.admit(holder, claims)

    async def _seed(self, shared: SharedBudget, subject: Subject, claim: SpendClaim) -> None:
        span = shared.span(self.clock.wall())
        amounts = await self._seeds.amounts(shared.budget, subject, span)
        claim.stopgap = amounts is None
        claim.seed = amounts or []

    def _keep(self, group: Sequence[Taken], admission: Admission) -> list[Taken]:
        spends = iter(admission.spends)
        for taken in group:
            compiled, claim = taken.compiled, taken.claim
            if isinstance(claim, SpendClaim):
                used, taken.bucket = next(spends)
                taken.generation = admission.generation
                self._fallback.remember(claim.key, used)
            elif isinstance(claim, SlotClaim):
                self._slots.add(taken)
            if compiled.fallback is not None and not self.counters.clustered:
                compiled.recovered()
        return list(group)

    def _wait(self, denier: Taken, admission: Admission) -> float:
        shared = denier.compiled.shared
        if admission.wait == PERIOD_END and isinstance(shared, SharedBudget):
            wall = self.clock.wall()
            return max(shared.span(wall).end - wall, 1e-6)
        return admission.wait

    def _take_back(self, group: Sequence[Taken]) -> None:
        """Undoes claims of which it is not known whether they were granted, where undoing
        what was never taken does no harm."""
        for taken in group:
            if isinstance(taken.claim, SpendClaim):
                if taken.claim.steps:
                    taken.bucket = int(self.clock.wall() // taken.claim.step)
                self.undo(taken)
            elif isinstance(taken.claim, SlotClaim):
                self.undo(taken)

    def _fall_back(self, wanted: Wanted, demand: Demand) -> Parts | Denial:
        outcome = self._fallback.take(wanted, demand)
        return outcome if isinstance(outcome, Denial) else Parts(outcome, [])

    def _undo_parts(self, parts: Parts) -> None:
        now = self.clock.monotonic()
        for gate, subject, taken in parts.local:
            gate.undo(subject, taken, now)
        for one in parts.shared:
            self.undo(one)

    def _freed(self, taken: Taken) -> Callable[[int], None] | None:
        if not isinstance(taken.claim, SlotClaim):
            return None
        self._slots.discard(taken)
        rule, subject = taken.compiled.rule, taken.subject
        if not isinstance(rule, Limit) or not rule.max_wait:
            return None
        return lambda _: self.released(rule, subject)

    def _spent(self, shared: SharedBudget, subject: Subject, key: str, spent: int) -> None:
        """Announces thresholds that were passed, unless another replica was first."""
        budget, wall = shared.budget, self.clock.wall()
        mark = f"{key}:m{turn_of(budget, wall)}"
        done = self._announced.get(mark, 0)
        while done < len(shared.thresholds) and spent >= shared.thresholds[done] * budget.amount:
            fraction = shared.thresholds[done]
            done += 1
            self.settler.put(
                MarkOnce(f"{mark}:{fraction:g}", shared.keep(wall)),
                partial(self._announce, budget, subject, fraction, spent),
            )
        if len(self._announced) >= _MAX_REMEMBERED:
            self._announced.clear()
        self._announced[mark] = done

    def _announce(
        self, budget: Budget, subject: Subject, fraction: float, spent: int, new: int
    ) -> None:
        if new:
            amount = budget.amount
            self._audience.budget_threshold(budget.name, subject[1], fraction, spent, amount)
