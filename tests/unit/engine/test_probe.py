"""Active health checks, on virtual time."""

import asyncio
from collections.abc import Awaitable, Callable

from tests.support.plain_dialect import Answer
from tests.support.virtual_time import run
from tests.unit.engine.world import SECRET, World
from trunkline import v1
from trunkline_server.engine.attempt import Services
from trunkline_server.engine.probe import Probe, Prober

DOWN = Answer(b"down", status=503)
WELL = Answer(b"{}")


def probing(script: list[Answer], probe: Probe, check: Callable[[World], Awaitable[None]]) -> None:
    """Runs `check` while alpha is probed."""

    async def main() -> None:
        world = World({"alpha": script})
        services = Services(world.http, world.clock, world.observer, world.budget, world.rng)
        prober = Prober(services, lambda: world.table, {"alpha": probe})
        task = asyncio.create_task(prober.run())
        await check(world)
        task.cancel()

    run(main)


def state(world: World) -> v1.CircuitState.ValueType:
    return world.health.state(0, world.clock.monotonic())


def test_failing_probes_open_the_breaker_and_good_ones_close_it() -> None:
    async def check(world: World) -> None:
        await asyncio.sleep(5.5)
        assert state(world) == v1.CIRCUIT_STATE_OPEN
        await asyncio.sleep(9)  # It stays open for ten seconds, whatever probes say.
        assert state(world) == v1.CIRCUIT_STATE_OPEN
        await asyncio.sleep(3)
        assert state(world) == v1.CIRCUIT_STATE_CLOSED
        assert world.health.state(1, world.clock.monotonic()) == v1.CIRCUIT_STATE_CLOSED

    probing([DOWN] * 5 + [WELL] * 20, Probe("/models", "", 1.0), check)


def test_a_probe_asks_with_the_providers_credentials() -> None:
    async def check(world: World) -> None:
        await asyncio.sleep(1.5)
        (request,) = world.http.requests
        assert (request.method, request.url) == ("GET", "http://alpha/models")
        assert dict(request.headers)["authorization"] == f"Bearer {SECRET}"

    probing([WELL], Probe("/models", "", 1.0), check)


def test_a_probe_may_ask_a_model_for_one_token() -> None:
    async def check(world: World) -> None:
        await asyncio.sleep(1.5)
        (request,) = world.http.requests
        assert (request.method, request.url) == ("POST", "http://alpha/generate")
        assert request.body == b"tiny"

    probing([WELL], Probe("", "tiny", 1.0), check)


def test_a_probe_that_hangs_is_a_failure() -> None:
    async def check(world: World) -> None:
        await asyncio.sleep(60)
        assert state(world) == v1.CIRCUIT_STATE_OPEN

    probing([Answer(delay=1000)] * 20, Probe("/models", "", 1.0), check)


def test_what_is_the_probes_own_fault_says_nothing() -> None:
    async def check(world: World) -> None:
        await asyncio.sleep(9.5)
        assert state(world) == v1.CIRCUIT_STATE_CLOSED

    probing([Answer(b"what?", status=404)] * 9, Probe("/nothing", "", 1.0), check)


def test_the_latency_of_a_probe_is_not_that_of_an_answer() -> None:
    async def check(world: World) -> None:
        await asyncio.sleep(5)
        assert world.health.latency(0) is None

    probing([WELL] * 5, Probe("/models", "", 1.0), check)
