"""Several observers as one."""

from collections.abc import Sequence

from trunkline import v1
from trunkline_server.engine.call import Call
from trunkline_server.engine.ports import Observer
from trunkline_server.errors import TrunklineError
from trunkline_server.routing.snapshot import Deployment


class Observers:
    """Passes every event to each of several observers, in order."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._started = [observer.call_started for observer in observers]
        self._attempted = [observer.attempt_ended for observer in observers]
        self._ended = [observer.call_ended for observer in observers]

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
