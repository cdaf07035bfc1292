"""Several observers as one."""

from trunkline import v1
from trunkline_server.engine.call import Call
from trunkline_server.engine.ports import NullObserver
from trunkline_server.governance.identity.principal import ANONYMOUS
from trunkline_server.telemetry.observers import Observers


class Ends(NullObserver):
    """Heeds the ends of calls alone."""

    def __init__(self, name: str, heard: list[str]) -> None:
        self._name = name
        self._heard = heard

    def call_ended(self, call: Call, error: object) -> None:
        self._heard.append(f"{self._name} ended")


class Starts(Ends):
    """Heeds the starts too."""

    def call_started(self, call: Call) -> None:
        self._heard.append(f"{self._name} started")


def test_each_hears_what_it_heeds_in_order() -> None:
    heard: list[str] = []
    both = Observers([Starts("first", heard), Ends("second", heard), NullObserver()])
    call = Call("generate", v1.GenerateRequest(), "id", ANONYMOUS, 0.0, 1.0)
    both.call_started(call)
    both.call_ended(call, None)
    assert heard == ["first started", "first ended", "second ended"]


def test_nothing_is_asked_of_who_heeds_nothing() -> None:
    class Idle(NullObserver):
        """Inherits all that it does."""

    def defect(*_: object) -> None:
        raise AssertionError("it was told of an event that it does not heed")

    idle = Idle()
    for event in ("call_started", "attempt_ended", "call_ended"):
        setattr(idle, event, defect)
    call = Call("generate", v1.GenerateRequest(), "id", ANONYMOUS, 0.0, 1.0)
    Observers([idle]).call_started(call)
    Observers([idle]).call_ended(call, None)
