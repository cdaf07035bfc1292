"""Route requests that were asked before are answered as if they were new."""

import random
from collections.abc import Iterator

import pytest

from tests.support.virtual_time import VirtualClock
from tests.unit.engine.world import Recorder
from tests.unit.routing.tables import Away, deployment
from trunkline import v1
from trunkline_server.engine.attempt import Services
from trunkline_server.engine.budget import RetryBudget
from trunkline_server.engine.engine import Engine
from trunkline_server.engine.questions import Question
from trunkline_server.engine.table import Table
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.identity.principal import ANONYMOUS, Kind, Principal
from trunkline_server.routing.health import HealthTable
from trunkline_server.routing.snapshot import Route, Snapshot
from trunkline_server.upstream.http import HttpClient

NARROW = Principal(kind=Kind.KEY, name="narrow", source="keys[narrow]", models=("other",))
STRATEGIES = tuple(number for number in v1.Strategy.values() if number)


class Clock(VirtualClock):
    """Time that the test moves."""

    now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


def table(strategy: v1.Strategy.ValueType, count: int, version: str = "one") -> Table:
    rows = tuple(
        deployment(
            slot,
            priority=slot % 2,
            weight=1.0 + slot % 3,
            capabilities=frozenset({"chat", "tools"} if slot % 4 else {"chat"}),
        )
        for slot in range(count)
    )
    snapshot = Snapshot(version, rows, {"m": Route("m", strategy, rows)}, {}, {}, 0.0)
    health = HealthTable([row.name for row in rows])
    return Table(snapshot, {}, health, lambda _provider, _model: {})


def engine(of: Table, clock: Clock, seed: int) -> Engine:
    client: HttpClient = None  # type: ignore[assignment]  # A dry run calls nobody.
    rng = random.Random(seed)
    return Engine(Services(client, clock, Recorder(), RetryBudget(), rng), of)


def requests() -> Iterator[v1.RouteRequest]:
    yield v1.RouteRequest(model="m", input_tokens=100, max_output_tokens=50)
    yield v1.RouteRequest(model="m", requirements=v1.Requirements(capabilities=["tools"]))
    yield v1.RouteRequest(model="m", routing=v1.RoutingOptions(explain=True))
    yield v1.RouteRequest(model="m", requirements=v1.Requirements(max_latency_ms=400))
    yield v1.RouteRequest(routing=v1.RoutingOptions(no_fallback=True))


def misfortune(health: HealthTable, count: int, chance: random.Random, now: float) -> None:
    """Something happens to a deployment."""
    slot = chance.randrange(count)
    health.begin(slot, now)
    if chance.random() < 0.5:
        health.succeed(slot, now, chance.random())
    else:
        health.fail(slot, now, latency=0.1, cooldown=chance.random() < 0.2)


def answer(asked: Engine, question: Question) -> bytes | str:
    try:
        return asked.route(question)
    except TrunklineError as error:
        return error.message


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("count", [1, 3, 8, 9])
def test_an_answer_is_that_of_a_new_request(strategy: v1.Strategy.ValueType, count: int) -> None:
    """Whatever happens to the candidates meanwhile; luck is the same for both."""
    of, clock, chance = table(strategy, count), Clock(), random.Random(count)
    known, new = engine(of, clock, 3), engine(of, clock, 3)
    questions = [Question(request, ANONYMOUS) for request in requests()]
    repeated = 0
    for _ in range(200):
        clock.now += chance.random() * 2.0
        if chance.random() < 0.4:
            misfortune(of.health, count, chance, clock.now)
        question = chance.choice(questions)
        repeated += bool(question.answers)
        fresh = Question(question.request, ANONYMOUS)
        assert answer(known, question) == answer(new, fresh)
    fixed = {v1.STRATEGY_PRIORITY, v1.STRATEGY_WEIGHTED, v1.STRATEGY_ROUND_ROBIN}
    assert (repeated > 0) == (strategy in fixed and count <= 8)


def test_a_new_table_and_other_constraints_are_heeded() -> None:
    clock = Clock()
    asked = engine(table(v1.STRATEGY_PRIORITY, 2), clock, 1)
    question = Question(v1.RouteRequest(model="m"), ANONYMOUS)

    def deployment_of(answer: bytes) -> tuple[str, str]:
        decision = v1.RouteResponse.FromString(answer).decision
        return decision.snapshot_version, decision.deployment

    constraints = (Away(frozenset({"p0"})),)
    assert deployment_of(asked.route(question)) == ("one", "d0")
    assert deployment_of(asked.route(question)) == ("one", "d0")
    assert deployment_of(asked.route(question, constraints)) == ("one", "d1")
    asked.table = table(v1.STRATEGY_PRIORITY, 2, "two")
    assert deployment_of(asked.route(question)) == ("two", "d0")
    # What cannot be answered on new terms is not answered on old ones.
    everyone = (Away(frozenset({"p0", "p1"})),)
    with pytest.raises(TrunklineError):
        asked.route(question, everyone)
    assert deployment_of(asked.route(question)) == ("two", "d0")


def test_a_question_is_its_callers_own() -> None:
    asked = engine(table(v1.STRATEGY_PRIORITY, 2), Clock(), 1)
    request = v1.RouteRequest(model="")
    asked.route(Question(request, ANONYMOUS))
    with pytest.raises(TrunklineError):
        asked.route(Question(request, NARROW))


def test_what_is_kept_is_bounded() -> None:
    question = Question(v1.RouteRequest(model="m"), ANONYMOUS)
    for number in range(1_000):
        question.keep((number,), b"x")
    assert len(question.answers) < 100
    question = Question(v1.RouteRequest(model="m"), ANONYMOUS)
    question.keep((1,), bytes(100_000))
    assert not question.answers
