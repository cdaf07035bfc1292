"""Rotation: the trial, the grace, the way back; and no failed call under load."""

import asyncio
import random

import pytest

from tests.support import virtual_time
from tests.support.virtual_time import VirtualClock
from tests.unit.secrets.test_envelope import OLD, ring
from tests.unit.secrets.world import Ears, MemoryStore
from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.secrets.ports import Headers, SecretValue
from trunkline_server.secrets.records import EncryptedRecords
from trunkline_server.secrets.rotation import CanaryError, CredentialVault
from trunkline_server.secrets.stored import CredentialRecords, StoredCredential, Version

FIRST, SECOND, THIRD = (SecretValue(f"sk-{n}", f"v{n}") for n in "abc")


def render(value: str) -> Headers:
    return (("content-type", "application/json"), ("authorization", f"Bearer {value}"))


class Vendor:
    """Takes some keys; another machine of it may know others."""

    def __init__(self, *keys: str) -> None:
        self.keys = set(keys)
        self.probes = 0
        self.away = False

    async def __call__(self, provider: str, headers: Headers) -> None:
        self.probes += 1
        await asyncio.sleep(0.01)
        if self.away:
            raise UpstreamError(v1.ERROR_REASON_SERVICE_UNAVAILABLE, "no route")
        if not self.takes(headers):
            quoted = dict(headers)["authorization"]
            raise UpstreamError(v1.ERROR_REASON_AUTHENTICATION, f"wrong key: {quoted}")

    def takes(self, headers: Headers) -> bool:
        return dict(headers)["authorization"].removeprefix("Bearer ") in self.keys


def vault(vendor: Vendor, ears: Ears) -> CredentialVault:
    made = CredentialVault(VirtualClock(), vendor, ears)
    made.load("openai", FIRST, render)
    return made


def test_a_rotation_switches_and_keeps_the_old_for_the_grace() -> None:
    async def main() -> None:
        vendor, ears = Vendor("sk-a", "sk-b"), Ears()
        credentials = vault(vendor, ears)
        held = credentials.credential("openai")
        assert credentials.credential("openai").refused(render("sk-a")) is None
        await credentials.rotate("openai", SECOND, grace=60)
        assert held.headers == render("sk-b")
        # Either way round: whichever of the two was refused, the other is tried.
        assert credentials.credential("openai").refused(render("sk-b")) == render("sk-a")
        assert credentials.credential("openai").refused(render("sk-a")) == render("sk-b")
        await asyncio.sleep(60.1)
        assert credentials.credential("openai").refused(render("sk-b")) is None
        assert held.previous is None
        # A call that began before the rotation, and is refused only now.
        assert credentials.credential("openai").refused(render("sk-a")) == render("sk-b")
        assert ears.actions() == ["credential.load", "credential.rotate"]
        assert "sk-" not in repr(ears.audited)

    virtual_time.run(main)


@pytest.mark.parametrize("away", [True, False])
def test_a_credential_that_fails_its_trial_is_not_taken(away: bool) -> None:
    async def main() -> None:
        vendor, ears = Vendor("sk-a"), Ears()
        vendor.away = away
        credentials = vault(vendor, ears)
        with pytest.raises(CanaryError) as failed:
            await credentials.rotate("openai", SECOND)
        assert failed.value.refused is not away
        assert "sk-" not in str(failed.value)
        assert failed.value.__context__ is None or failed.value.__suppress_context__
        assert credentials.credential("openai").headers == render("sk-a")
        assert credentials.credential("openai").refused(render("sk-a")) is None
        assert ears.actions() == ["credential.load", "credential.canary_failed"]
        assert "sk-" not in repr(ears.audited)

    virtual_time.run(main)


def test_the_same_value_again_is_no_rotation() -> None:
    async def main() -> None:
        vendor, ears = Vendor("sk-a"), Ears()
        credentials = vault(vendor, ears)
        await credentials.rotate("openai", SecretValue("sk-a", "v9"))
        assert vendor.probes == 0
        assert ears.actions() == ["credential.load"]

    virtual_time.run(main)


def test_rotations_of_one_provider_wait_for_each_other() -> None:
    async def main() -> None:
        credentials = vault(Vendor("sk-b", "sk-c"), Ears())
        await asyncio.gather(
            credentials.rotate("openai", SECOND), credentials.rotate("openai", THIRD)
        )
        assert credentials.credential("openai").headers == render("sk-c")
        assert credentials.credential("openai").refused(render("sk-c")) == render("sk-b")

    virtual_time.run(main)


def test_a_rotation_reaches_another_replica_through_the_store() -> None:
    async def main() -> None:
        records = CredentialRecords(EncryptedRecords(MemoryStore(), ring(k=OLD), Ears()))
        vendor = Vendor("sk-b")
        now = VirtualClock().wall()
        first = Version(FIRST, 0)
        made = StoredCredential(
            name="openai",
            reference="",
            canary_provider="",
            created_at=0,
            updated_at=0,
            current=first,
        )
        await records.write((await records.write(made)).rotated(SECOND, now=now, grace=60))
        await vendor("openai", render("sk-b"))
        await asyncio.sleep(20)
        stored = await records.read("openai")
        assert stored is not None
        pair = stored.pair(VirtualClock().wall())
        other = vault(vendor, Ears())
        other.adopt("openai", pair)
        assert vendor.probes == 1
        assert other.credential("openai").headers == render("sk-b")
        assert other.credential("openai").refused(render("sk-b")) == render("sk-a")
        await asyncio.sleep(40.1)
        assert other.credential("openai").refused(render("sk-b")) is None
        late = vault(vendor, Ears())
        late.adopt("openai", pair)
        assert late.credential("openai").refused(render("sk-b")) is None

    virtual_time.run(main)


def test_new_headers_of_a_provider_keep_its_credentials() -> None:
    async def main() -> None:
        credentials = vault(Vendor("sk-b"), Ears())
        held = credentials.credential("openai")
        await credentials.rotate("openai", SECOND, grace=60)
        credentials.load("openai", FIRST, lambda value: (("x-api-key", value),))
        assert held.headers == (("x-api-key", "sk-b"),)
        assert credentials.credential("openai").refused(held.headers) == (("x-api-key", "sk-a"),)

    virtual_time.run(main)


def test_no_call_fails_while_keys_are_exchanged_under_load() -> None:
    """Ten rotations under forty callers, at a vendor of two machines that learn of new keys
    late and forget old ones at times of their own, all within the grace."""

    async def main() -> None:
        rng = random.Random(20)
        machines = (Vendor("sk-0"), Vendor("sk-0"))
        credentials = CredentialVault(VirtualClock(), machines[0], Ears())
        credentials.load("openai", SecretValue("sk-0", "0"), render)
        held = credentials.credential("openai")
        answered = failed = repeated = 0
        running = True

        async def call() -> None:
            nonlocal answered, failed, repeated
            headers = held.headers
            await asyncio.sleep(rng.uniform(0, 0.3))
            machine = rng.choice(machines)
            if not machine.takes(headers):
                other = held.refused(headers)
                repeated += 1
                await asyncio.sleep(rng.uniform(0, 0.05))
                if other is None or not machine.takes(other):
                    failed += 1
                    return
            answered += 1

        async def caller() -> None:
            while running:
                await call()

        callers = [asyncio.create_task(caller()) for _ in range(40)]
        for number in range(1, 11):
            old, new = f"sk-{number - 1}", f"sk-{number}"
            machines[0].keys.add(new)
            await credentials.rotate("openai", SecretValue(new, new), grace=10)
            await asyncio.sleep(rng.uniform(0, 2))
            machines[1].keys.add(new)
            await asyncio.sleep(rng.uniform(0, 2))
            for machine in machines:
                machine.keys.discard(old)
            await asyncio.sleep(1)
        running = False
        await asyncio.gather(*callers)
        assert failed == 0
        assert answered > 5000
        assert repeated > 100

    virtual_time.run(main)
