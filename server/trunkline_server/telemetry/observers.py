"""Several observers as one."""

from collections.abc import Sequence

from trunkline import v1
from trunkline_server.engine.call import Call
from trunkline_server.engine.ports import NullObserver, Observer
from trunkline_server.errors import TrunklineError
from trunkline_server.routing.snapshot import Deployment


class Observers:
    """Passes every event to each of several observers, in order."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        # Who has nothing to do at an event is not told of it.
        self._started = [each.call_started for each in observers if _heeds(each, "call_started")]
        self._attempted = [
            each.attempt_ended for each in observers if _heeds(each, "attempt_ended")
        ]
        self._ended = [each.call_ended for each in observers if _heeds(each, "call_ended")]

    def call_started(self, call: Call) -> None:
        """As engine.ports.Observer."""
        for tell in self._started:
            tell(call)

    def attempt_ended(
        self, call: Call, target: Deployment, attempt: v1.Attempt, error: TrunklineError | None
    ) -> None:
        """As engine.ports.Observer."""
        for tell in self._attempted:
            tell(call, target, attempt, error)

    def call_ended(self, call: Call, error: TrunklineError | None) -> None:
        """As engine.ports.Observer."""
        for tell in self._ended:
            tell(call, error)


def _heeds(observer: Observer, event: str) -> bool:
    """Whether an observer's method is its own, and not NullObserver's."""
    return getattr(type(observer), event) is not getattr(NullObserver, event)
