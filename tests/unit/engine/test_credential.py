"""A refused credential: the same attempt is sent again under the other one, once."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import pytest

from tests.support.plain_dialect import Answer
from tests.support.virtual_time import VirtualClock, run
from tests.unit.engine.world import World
from tests.unit.secrets.world import Ears
from trunkline import v1
from trunkline_server.engine.attempt import Services
from trunkline_server.engine.budget import RetryBudget
from trunkline_server.engine.probe import Probe, Prober
from trunkline_server.errors import TrunklineError
from trunkline_server.routing.snapshot import AttemptPolicy
from trunkline_server.secrets.ports import Headers, SecretValue
from trunkline_server.secrets.rotation import Credential, CredentialVault

OK = Answer(b"hello")
STREAM = Answer(chunks=[(0.1, b"data: hello\n\ndata: [end]\n\n")])
# Some vendors quote the key.
REFUSED = Answer(b"wrong key sk-new, not sk-old", status=401)
FORBIDDEN = Answer(b"not with sk-new", status=403)


def render(value: str) -> Headers:
    return (("authorization", f"Bearer {value}"), ("x-plain", "shown"))


async def take(provider: str, headers: Headers) -> None:
    """A vendor that takes every key when it is tried."""


async def rotated(grace: float = 60.0) -> Credential:
    vault = CredentialVault(VirtualClock(), take, Ears())
    vault.load("alpha", SecretValue("sk-old", "1"), render)
    await vault.rotate("alpha", SecretValue("sk-new", "2"), grace)
    return vault.credential("alpha")


def in_rotation(
    script: Mapping[str, Sequence[Answer]],
    main: Callable[[World], Awaitable[None]],
    *,
    grace: float = 60.0,
    policy: AttemptPolicy | None = None,
) -> None:
    async def go() -> None:
        # No extra attempt is granted: what is repeated draws on no budget.
        budget = RetryBudget(ratio=0.0, min_per_second=0.0)
        policy_ = policy or AttemptPolicy(retries=0)
        await main(World(script, policy_, budget, credential=await rotated(grace)))

    run(go)


def keys(world: World) -> list[str]:
    return [dict(each.headers)["authorization"].split()[1] for each in world.http.requests]


@pytest.mark.parametrize("refusal", [REFUSED, FORBIDDEN])
def test_a_refused_call_is_answered_under_the_credential_before(refusal: Answer) -> None:
    async def main(world: World) -> None:
        response = await world.generate()
        assert keys(world) == ["sk-new", "sk-old"]
        (attempt,) = response.attempts
        assert attempt.outcome == v1.ATTEMPT_OUTCOME_SUCCEEDED
        assert attempt.http_status == 200
        assert world.observer.attempts == [("alpha-large", None)]
        # One attempt, and a good one, for the health of the deployment.
        assert world.health.success_rate(0) == 1.0

    in_rotation({"alpha": [refusal, OK]}, main)


def test_a_refused_stream_too() -> None:
    async def main(world: World) -> None:
        events = await world.stream()
        assert keys(world) == ["sk-new", "sk-old"]
        assert [event.WhichOneof("event") for event in events] == ["start", "delta", "end"]
        assert len(events[-1].end.attempts) == 1
        assert world.observer.attempts == [("alpha-large", None)]

    in_rotation({"alpha": [REFUSED, STREAM]}, main)


@pytest.mark.parametrize("stream", [False, True])
def test_it_is_repeated_once_and_then_the_next_target_is_asked(stream: bool) -> None:
    async def main(world: World) -> None:
        await (world.stream() if stream else world.generate())
        assert world.http.hosts == ["alpha", "alpha", "beta"]
        first, _ = world.observer.attempts
        assert first[0] == "alpha-large"
        assert first[1] is not None
        # What was refused under either is quoted under neither.
        assert first[1].message == "wrong key [redacted], not [redacted]"
        assert world.health.success_rate(0) < 1.0

    in_rotation({"alpha": [REFUSED, REFUSED], "beta": [STREAM if stream else OK]}, main)


@pytest.mark.parametrize("stream", [False, True])
def test_after_the_grace_the_refusal_is_the_answer(stream: bool) -> None:
    async def main(world: World) -> None:
        await asyncio.sleep(61)
        with pytest.raises(TrunklineError) as caught:
            await (world.stream() if stream else world.generate(routing=alone))
        assert caught.value.reason == v1.ERROR_REASON_PROVIDER_CREDENTIALS
        assert "sk-new" not in caught.value.message

    alone = v1.RoutingOptions(no_fallback=True)
    script = {"alpha": [REFUSED], "beta": [REFUSED], "gamma": [REFUSED]}
    in_rotation(script, main)


@pytest.mark.parametrize("status", [400, 404, 429, 503])
def test_other_failures_are_not_repeated(status: int) -> None:
    async def main(world: World) -> None:
        with pytest.raises(TrunklineError):
            await world.generate(routing=v1.RoutingOptions(no_fallback=True))
        assert keys(world) == ["sk-new"]

    in_rotation({"alpha": [Answer(b"no", status=status)]}, main)


def test_both_tries_share_the_attempts_time() -> None:
    async def main(world: World) -> None:
        with pytest.raises(TrunklineError) as caught:
            await world.generate(routing=v1.RoutingOptions(no_fallback=True))
        assert caught.value.reason == v1.ERROR_REASON_TIMEOUT
        assert world.clock.monotonic() == pytest.approx(1.0)

    slow = Answer(b"wrong key", status=401, delay=0.6)
    policy = AttemptPolicy(retries=0, attempt_timeout=1.0)
    in_rotation({"alpha": [slow, Answer(b"late", delay=0.6)]}, main, policy=policy)


def test_both_tries_of_a_stream_share_its_time_to_the_first_byte() -> None:
    async def main(world: World) -> None:
        with pytest.raises(TrunklineError) as caught:
            await world.stream(routing=v1.RoutingOptions(no_fallback=True))
        assert caught.value.reason == v1.ERROR_REASON_TIMEOUT
        assert world.clock.monotonic() == pytest.approx(1.0)

    slow = Answer(b"wrong key", status=401, delay=0.6)
    policy = AttemptPolicy(retries=0, first_byte_timeout=1.0)
    in_rotation({"alpha": [slow, Answer(delay=0.6)]}, main, policy=policy)


def test_a_call_under_way_is_repeated_under_the_newest() -> None:
    async def main() -> None:
        vault = CredentialVault(VirtualClock(), take, Ears())
        vault.load("alpha", SecretValue("sk-one", "1"), render)
        late = Answer(b"no sk-one", status=401, delay=1.0)
        world = World({"alpha": [late, OK]}, credential=vault.credential("alpha"))
        call = asyncio.create_task(world.generate())
        await asyncio.sleep(0.1)
        await vault.rotate("alpha", SecretValue("sk-two", "2"), 60.0)
        await vault.rotate("alpha", SecretValue("sk-three", "3"), 60.0)
        await call
        assert keys(world) == ["sk-one", "sk-three"]

    run(main)


def test_a_refusal_under_a_credential_that_is_gone_does_not_tell_it() -> None:
    async def main() -> None:
        vault = CredentialVault(VirtualClock(), take, Ears())
        vault.load("alpha", SecretValue("sk-one", "1"), render)
        quoting = Answer(b"too much under Bearer sk-one, that is sk-one", status=429, delay=1.0)
        world = World({"alpha": [quoting], "beta": [OK]}, credential=vault.credential("alpha"))
        call = asyncio.create_task(world.generate())
        await asyncio.sleep(0.1)
        await vault.rotate("alpha", SecretValue("sk-two", "2"), 0.0)
        response = await call
        assert response.attempts[0].message == "too much under [redacted], that is [redacted]"

    run(main)


def test_a_probe_asks_again_under_the_other() -> None:
    async def main() -> None:
        world = World({"alpha": [REFUSED, OK] * 9}, credential=await rotated())
        services = Services(world.http, world.clock, world.observer, world.budget, world.rng)
        probes = {"alpha": Probe("/models", "", 1.0)}
        probing = asyncio.create_task(Prober(services, lambda: world.table, probes).run())
        await asyncio.sleep(8.5)
        probing.cancel()
        assert keys(world) == ["sk-new", "sk-old"] * 8
        assert world.health.state(0, world.clock.monotonic()) == v1.CIRCUIT_STATE_CLOSED

    run(main)
