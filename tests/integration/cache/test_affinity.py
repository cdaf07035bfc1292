"""Prefix affinity over the wire: a conversation goes where its beginning went."""

from tests.integration.cache.vendor import Vendor
from tests.support.fault_server import FaultServer
from tests.support.router import PATIENCE, ask, openai_at, router

POLICY = "strategy: round_robin, attempts: {retries: 0}"


async def providers(setting: str) -> list[str]:
    """Who answers six turns of a conversation, each with a short call of another in between."""
    vendor = Vendor()
    async with FaultServer(vendor) as one, FaultServer(vendor) as two:
        config = openai_at(one.url, two.url, policy=POLICY).replace(
            "price: {input: '2', output: '8'}",
            "price: {input: '2', output: '8', cached_input: '0.2'}",
        )
        answered = []
        async with router(f"{config}\nrouting: {{prefix_affinity: {setting}}}") as running:
            talk = ask("word " * 2_000)
            for turn in range(6):
                talk.messages.extend(ask(f"turn {turn} " * 400).messages)
                told = await running.stub.Generate(talk, timeout=PATIENCE)
                answered.append(told.provider)
                if turn % 2:
                    await running.stub.Generate(ask(f"short {turn}"), timeout=PATIENCE)
        return answered


async def test_a_conversation_stays_where_it_began() -> None:
    assert len(set(await providers("true"))) == 1


async def test_off_it_takes_turns() -> None:
    assert len(set(await providers("false"))) == 2
