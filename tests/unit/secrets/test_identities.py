"""Credentials of identities: renewed before their end by the clock, kept while renewals fail,
changed after a trial."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from tests.support import virtual_time
from tests.support.virtual_time import VirtualClock
from tests.unit.secrets.world import Ears
from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.secrets.identities import Held, Keeper
from trunkline_server.secrets.ports import (
    SecretRefusedError,
    SecretUnavailableError,
    SecretValue,
)

HOUR = 3600.0
WHAT = "providers.cloud.auth.entra"


@dataclass(eq=False)
class Source:
    """An identity that gives credentials of an hour; `at` is when it was asked."""

    name: str = "token"
    life: float | None = HOUR
    failing: bool = False
    broken: bool = False
    at: list[float] = field(default_factory=list)

    def fetch(self, what: str, timeout: float) -> SecretValue:
        clock = VirtualClock()
        self.at.append(clock.monotonic())
        if self.broken:
            raise KeyError("a reply that makes no sense")
        if self.failing:
            raise SecretUnavailableError(f"{what}: it is away")
        number = len(self.at)
        expires = None if self.life is None else clock.wall() + self.life
        return SecretValue(f"{self.name}-{number}", f"v{number}", expires)


class Inline:
    """A pool without threads."""

    async def run(self, what: str, call: Callable[[], SecretValue]) -> SecretValue:
        await asyncio.sleep(0.05)
        return call()


def world(source: Source) -> tuple[Keeper, Held, Ears]:
    clock, ears = VirtualClock(), Ears()
    held = Held("cloud", "entra", clock)
    held.wanted = source
    return Keeper(Inline(), clock, ears, ears), held, ears


def test_a_credential_is_renewed_well_before_its_end() -> None:
    async def main() -> None:
        source = Source()
        keeper, held, ears = world(source)
        await keeper.first(held)
        assert held.fresh().value == "token-1"
        keeper.keep(held)
        await asyncio.sleep(24 * HOUR)
        gaps = [after - before for before, after in zip(source.at, source.at[1:], strict=False)]
        # Of each life, at least a quarter is left for tries.
        assert all(0.6 * HOUR < gap <= 0.76 * HOUR for gap in gaps)
        assert len(gaps) > 30
        # At no moment was there none.
        assert held.fresh().value == f"token-{len(source.at)}"
        assert ears.audited[0] == ("secret.fetch", f"identity:{WHAT}", {"version": "v1"})
        await keeper.close([held])

    virtual_time.run(main)


def test_while_renewals_fail_the_last_is_used_to_its_end_and_not_beyond() -> None:
    async def main() -> None:
        source = Source()
        keeper, held, ears = world(source)
        await keeper.first(held)
        keeper.keep(held)
        source.failing = True
        await asyncio.sleep(HOUR - 1)
        assert held.fresh().value == "token-1"
        # Tried every minute at least.
        assert len(source.at) > 15
        await asyncio.sleep(2)
        with pytest.raises(UpstreamError) as lacking:
            held.fresh()
        error = lacking.value
        assert error.reason == v1.ERROR_REASON_AUTHENTICATION
        assert not error.sent
        assert error.message == (
            f"there is no valid credential for cloud: it has expired; {WHAT}: it is away;"
            f" mend {WHAT}, or what it names"
        )
        source.failing = False
        await asyncio.sleep(60)
        assert held.fresh().value == f"token-{len(source.at)}"
        assert ears.failures
        await keeper.close([held])

    virtual_time.run(main)


def test_a_first_fetch_that_fails_is_repeated() -> None:
    async def main() -> None:
        source = Source(broken=True)
        keeper, held, _ = world(source)
        with pytest.raises(SecretUnavailableError, match="the cloud's library failed: KeyError"):
            await keeper.first(held)
        keeper.keep(held)
        with pytest.raises(UpstreamError, match="it has not been fetched yet"):
            held.fresh()
        await asyncio.sleep(5)
        source.broken = False
        await asyncio.sleep(60)
        assert held.fresh().value.startswith("token-")
        await keeper.close([held])

    virtual_time.run(main)


def test_a_refused_credential_is_fetched_at_once_but_not_twice_in_a_breath() -> None:
    async def main() -> None:
        source = Source()
        keeper, held, _ = world(source)
        await keeper.first(held)
        keeper.keep(held)
        held.doubted()
        await asyncio.sleep(1)
        assert len(source.at) == 1
        await asyncio.sleep(30)
        for _ in range(100):
            held.doubted()
            await asyncio.sleep(0.01)
        assert len(source.at) == 2
        assert held.fresh().value == "token-2"
        await keeper.close([held])

    virtual_time.run(main)


def test_what_knows_of_no_end_is_read_again_every_hour() -> None:
    async def main() -> None:
        source = Source(life=None)
        keeper, held, _ = world(source)
        await keeper.first(held)
        keeper.keep(held)
        await asyncio.sleep(10 * HOUR)
        assert 10 <= len(source.at) <= 12
        await keeper.close([held])

    virtual_time.run(main)


def test_what_comes_nearly_over_is_asked_for_again_in_steps() -> None:
    """A machine's own endpoint gives the token it has, until a new one is due."""

    async def main() -> None:
        source = Source(life=3.0)
        keeper, held, _ = world(source)
        await keeper.first(held)
        keeper.keep(held)
        await asyncio.sleep(100)
        assert 30 < len(source.at) < 110
        source.life = -1.0
        await asyncio.sleep(10)
        with pytest.raises(UpstreamError, match="what was given has expired already"):
            held.fresh()
        await keeper.close([held])

    virtual_time.run(main)


def test_a_new_identity_is_tried_before_it_is_used() -> None:
    async def main() -> None:
        old, new = Source("old"), Source("new")
        keeper, held, ears = world(old)
        tried: list[str] = []
        refuses = True

        async def trial(value: SecretValue) -> None:
            tried.append(value.value)
            if refuses:
                raise SecretRefusedError("the provider refuses it")

        held.trial = trial
        await keeper.first(held)
        keeper.keep(held)
        held.wanted = new
        keeper.keep(held)
        await asyncio.sleep(2 * HOUR)
        # The old one is used, and renewed, all the while.
        assert held.fresh().value.startswith("old-")
        assert len(old.at) > 2
        assert set(tried) == {f"new-{n + 1}" for n in range(len(new.at))}
        refuses = False
        await asyncio.sleep(61)
        assert held.fresh().value == f"new-{len(new.at)}"
        assert ears.audited[-1] == ("credential.rotate", WHAT, {"version": f"v{len(new.at)}"})
        # From now on it is renewed without trials.
        before = len(tried)
        await asyncio.sleep(2 * HOUR)
        assert len(tried) == before
        await keeper.close([held])

    virtual_time.run(main)
