"""What the unary and the streamed attempt loop share: failures gathered, the next step chosen."""

from math import inf

from trunkline import v1
from trunkline_server.engine.attempt import Services, deadline_passed
from trunkline_server.engine.call import Call, Course
from trunkline_server.engine.itinerary import Itinerary, Step
from trunkline_server.engine.verdict import Failure, told_to_caller, verdict_on
from trunkline_server.errors import TrunklineError, UpstreamError
from trunkline_server.routing.snapshot import Deployment

# No room under a limit or a budget.
_LACKS = frozenset({v1.ERROR_REASON_RATE_LIMIT, v1.ERROR_REASON_QUOTA_EXCEEDED})


class Journey:
    """One call's way from target to target."""

    def __init__(self, services: Services, course: Course, call: Call) -> None:
        self._clock = services.clock
        self._health = course.table.health
        self._call = call
        self._plan = course.plan
        self._failures: list[Failure] = []
        self._refusal: TrunklineError | None = None
        self.itinerary = Itinerary(
            course.plan, course.table.health, services.budget, services.rng, call.deadline
        )

    def first(self) -> Step:
        """The first step."""
        return self.itinerary.first()

    def after(self, target: Deployment, error: TrunklineError) -> Step:
        """The step after a failure. Raises the call's error when there is none.

        An UpstreamError is a failed attempt. Any other TrunklineError means that nothing was
        sent: the target's dialect cannot carry the request, or a limit or a budget has no room.
        """
        now = self._clock.monotonic()
        if isinstance(error, UpstreamError):
            self.failed(target, error)
            if now >= self._call.deadline:
                raise deadline_passed(self._call) from error
            step = self.itinerary.after(error, verdict_on(error), now)
        else:
            self.refused(error)
            step = self.itinerary.skip(now)
        if step is None:
            raise self._told(now) from error
        return step

    def hedge(self) -> Deployment | None:
        """The target of a second attempt beside a slow one, if there may be one."""
        step = self.itinerary.hedge(self._clock.monotonic())
        return None if step is None else step.target

    def failed(self, target: Deployment, error: UpstreamError) -> None:
        """Notes a failed attempt that needs no next step, because another one is under way."""
        self._failures.append(Failure(target.provider, error))

    def refused(self, error: TrunklineError) -> None:
        """Notes why nothing was sent to a target. Of several reasons counts the first, but that
        a lack of room, which passes, counts before it, and of those the one that passes first."""
        known = self._refusal
        if known is None or (_is_lack(error) and (not _is_lack(known) or _sooner(error, known))):
            self._refusal = error

    def _told(self, now: float) -> TrunklineError:
        refusal = self._refusal
        if refusal is not None:
            if not self._failures:
                return refusal
            hope = max(verdict_on(failure.error).hope for failure in self._failures)
            if _is_lack(refusal) and verdict_on(refusal).hope > hope:
                return refusal
        waits = (self._health.cooldown_remaining(t.slot, now) for t in self._plan.targets)
        return told_to_caller(self._failures, min(waits) or None)


def _is_lack(error: TrunklineError) -> bool:
    return error.reason in _LACKS


def _sooner(error: TrunklineError, other: TrunklineError) -> bool:
    waits = [inf if one.retry_after is None else one.retry_after for one in (error, other)]
    return waits[0] < waits[1]
