"""Background renewal, in virtual time."""

import asyncio
import random

import pytest

from tests.support import virtual_time
from tests.support.virtual_time import VirtualClock
from tests.unit.secrets.world import Ears, ScriptedSource
from trunkline_server.secrets.ports import SecretUnavailableError, SecretValue
from trunkline_server.secrets.refresher import Refresher, RefreshPolicy

POLICY = RefreshPolicy(interval=100.0, retry=1.0, max_stale=1000.0)
REFERENCE = "vault:secret/openai#key"
AWAY = SecretUnavailableError("away")


def refresher(source: ScriptedSource, ears: Ears) -> Refresher:
    clock = VirtualClock()
    return Refresher(source, clock, ears, ears, policy=POLICY, rng=random.Random(1))


def test_a_value_is_fetched_once_per_interval_and_changes_are_told() -> None:
    async def main() -> None:
        source, ears = ScriptedSource(SecretValue("a", "1")), Ears()
        kept = refresher(source, ears)
        changes: list[str] = []

        async def on_change(value: SecretValue) -> None:
            changes.append(value.version)

        assert (await kept.keep(REFERENCE, on_change)).value == "a"
        await asyncio.sleep(1000.5)
        assert 10 <= source.asked <= 12
        assert changes == []
        source.answer = SecretValue("b", "2")
        await asyncio.sleep(101)
        assert kept.get(REFERENCE).value == "b"
        assert changes == ["2"]
        await kept.close()
        asked = source.asked
        await asyncio.sleep(1000)
        assert source.asked == asked
        assert set(ears.actions()) == {"secret.fetch"}

    virtual_time.run(main)


def test_a_value_that_ends_soon_is_renewed_before_its_end() -> None:
    async def main() -> None:
        clock = VirtualClock()
        source, ears = ScriptedSource(SecretValue("a", "1", clock.wall() + 20)), Ears()
        kept = refresher(source, ears)
        await kept.keep(REFERENCE)
        source.answer = SecretValue("b", "2", clock.wall() + 4000)
        await asyncio.sleep(16.1)
        assert kept.get(REFERENCE).value == "b"
        await kept.close()

    virtual_time.run(main)


def test_the_last_value_serves_an_outage_up_to_the_declared_time() -> None:
    async def main() -> None:
        source, ears = ScriptedSource(SecretValue("a", "1")), Ears()
        kept = refresher(source, ears)
        await kept.keep(REFERENCE)
        source.answer = AWAY
        await asyncio.sleep(1099)
        assert kept.get(REFERENCE).value == "a"
        # Backed off: 1, 2, 4, ... 100 seconds, not a fetch per second.
        assert 8 <= len(ears.failures) <= 20
        staleness = [stale for _, stale in ears.failures]
        assert staleness == sorted(staleness)
        await asyncio.sleep(2)
        with pytest.raises(SecretUnavailableError, match="1000 s"):
            kept.get(REFERENCE)
        source.answer = SecretValue("b", "2")
        await asyncio.sleep(101)
        assert kept.get(REFERENCE).value == "b"
        await kept.close()

    virtual_time.run(main)


def test_a_change_that_is_not_taken_is_told_again() -> None:
    async def main() -> None:
        source, ears = ScriptedSource(SecretValue("a", "1")), Ears()
        kept = refresher(source, ears)
        tries = 0

        async def on_change(value: SecretValue) -> None:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise AWAY

        await kept.keep(REFERENCE, on_change)
        source.answer = SecretValue("b", "2")
        await asyncio.sleep(1000)
        assert tries == 3
        assert len(ears.failures) == 2
        await kept.close()

    virtual_time.run(main)


def test_a_first_fetch_that_fails_keeps_nothing() -> None:
    async def main() -> None:
        kept = refresher(ScriptedSource(AWAY), Ears())
        with pytest.raises(SecretUnavailableError):
            await kept.keep(REFERENCE)
        with pytest.raises(KeyError):
            kept.get(REFERENCE)
        await kept.close()

    virtual_time.run(main)


def test_a_refresh_may_be_asked_for() -> None:
    async def main() -> None:
        source = ScriptedSource(SecretValue("a", "1"))
        kept = refresher(source, Ears())
        await kept.keep(REFERENCE)
        source.answer = SecretValue("b", "2")
        assert (await kept.refresh(REFERENCE)).value == "b"
        assert kept.get(REFERENCE).value == "b"
        await kept.close()

    virtual_time.run(main)
