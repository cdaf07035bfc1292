"""Calls that wait for room under a limit: in order of arrival, bounded in number and in time."""

import asyncio
from collections.abc import Sequence

from trunkline_server.clock import Clock
from trunkline_server.governance.quotas.compiled import Compiled
from trunkline_server.governance.quotas.deciding import Decider, Outcome
from trunkline_server.governance.quotas.denial import Denial
from trunkline_server.governance.quotas.gates import Subject
from trunkline_server.governance.quotas.grants import Ask, Grant
from trunkline_server.governance.quotas.ports import NEVER, UNKNOWN
from trunkline_server.governance.quotas.rules import Demand, Limit, Measure
from trunkline_server.governance.quotas.waiting import Line

# How often the first of a line looks whether another replica has freed a slot, in seconds.
_LOOK_SECONDS = 0.05


class Lines:
    """The lines of one process, one for each subject of a limit that somebody waits for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lines: dict[tuple[str, Subject], Line] = {}

    def behind(self, compiled: Compiled, subject: Subject) -> float | None:
        """How long a newcomer would wait at least, in seconds; UNKNOWN if that cannot be told,
        None if nobody waits."""
        line = self._lines.get((compiled.rule.name, subject))
        return None if line is None else _queue_of(compiled.rule, line)

    def released(self, rule: Limit, subject: Subject) -> None:
        """Something was given back: the first in line may try again."""
        line = self._lines.get((rule.name, subject))
        if line is not None:
            line.wake()

    async def pursue(
        self, decider: Decider, rules: Sequence[Compiled], demand: Demand, outcome: Outcome
    ) -> Grant:
        """Sees a call through that could not be decided at once. Raises TrunklineError."""
        if isinstance(outcome, Ask):
            outcome = await decider.ask(rules, demand, outcome)
        if isinstance(outcome, Grant):
            return outcome
        rule, subject = outcome.rule, outcome.subject
        if not isinstance(rule, Limit) or not may_wait(outcome):
            raise outcome.error(demand)
        now = self._clock.monotonic()
        until = min(now + rule.max_wait, demand.deadline)
        place = (rule.name, subject)
        line = self._lines.setdefault(place, Line())
        try:
            if line.waiting >= rule.max_waiting or now + outcome.wait > until:
                raise outcome.error(demand)
            loop_time = asyncio.get_running_loop().time()
            async with line.turn(loop_time + until - now):
                return await self._first_in_line(decider, rules, demand, line, until)
        except TimeoutError:
            # What it was told at first is over; those before it are still there.
            raise Denial(rule, subject, _queue_of(rule, line)).error(demand) from None
        finally:
            if not line.waiting:
                self._lines.pop(place, None)

    async def _first_in_line(
        self,
        decider: Decider,
        rules: Sequence[Compiled],
        demand: Demand,
        line: Line,
        until: float,
    ) -> Grant:
        while True:
            outcome = decider.decide(rules, demand, in_line=True)
            if isinstance(outcome, Ask):
                outcome = await decider.ask(rules, demand, outcome, in_line=True)
            if isinstance(outcome, Grant):
                return outcome
            left = until - self._clock.monotonic()
            if not may_wait(outcome) or left <= 0.0 or outcome.wait > left:
                raise outcome.error(demand)
            await line.pause(outcome.wait if outcome.wait >= 0.0 else min(_LOOK_SECONDS, left))


def may_wait(denial: Denial) -> bool:
    """Whether a call may wait for the rule that denies it."""
    return isinstance(denial.rule, Limit) and denial.rule.max_wait > 0.0 and denial.wait != NEVER


def _queue_of(rule: object, line: Line) -> float:
    """What those who wait take before a newcomer's turn: of requests, one interval each."""
    if isinstance(rule, Limit) and rule.measure is Measure.REQUESTS:
        return line.waiting * rule.interval
    return UNKNOWN
