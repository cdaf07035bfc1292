"""What the unary and the streamed attempt loop share: failures gathered, the next step chosen."""

from trunkline_server.engine.attempt import Services, deadline_passed
from trunkline_server.engine.call import Call, Course
from trunkline_server.engine.itinerary import Itinerary, Step
from trunkline_server.engine.verdict import Failure, told_to_caller, verdict_on
from trunkline_server.errors import TrunklineError, UpstreamError
from trunkline_server.routing.snapshot import Deployment


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

        An UpstreamError is a failed attempt. Any other TrunklineError means that the target's
        dialect cannot carry the request, and that nothing was sent.
        """
        now = self._clock.monotonic()
        if isinstance(error, UpstreamError):
            self.failed(target, error)
            if now >= self._call.deadline:
                raise deadline_passed(self._call) from error
            step = self.itinerary.after(error, verdict_on(error), now)
        else:
            self._refusal = self._refusal or error
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

    def _told(self, now: float) -> TrunklineError:
        if not self._failures and self._refusal is not None:
            return self._refusal
        waits = (self._health.cooldown_remaining(t.slot, now) for t in self._plan.targets)
        return told_to_caller(self._failures, min(waits) or None)
