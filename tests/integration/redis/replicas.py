"""Governors as replicas have them: each with a client of its own on one Redis."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from tests.unit.governance.world import Heard
from trunkline_server.clock import SystemClock
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.quotas.governor import Governor, Grant
from trunkline_server.governance.quotas.leases import LeasePolicy
from trunkline_server.governance.quotas.outage import OutageModes
from trunkline_server.governance.quotas.ports import SpendSource
from trunkline_server.governance.quotas.rules import Budget, Demand, Limit
from trunkline_server.store.redis import ChannelPolicy, RedisClient
from trunkline_server.store.redis_counters import RedisCounters

# The machine of the tests may stall for longer than a router would bear.
PATIENT = ChannelPolicy(timeout=5.0, connect_timeout=5.0)


class Replica:
    """One replica: its governor, its client, and what its audience heard."""

    def __init__(
        self,
        url: str,
        rules: Sequence[Limit | Budget],
        *,
        policy: ChannelPolicy = PATIENT,
        modes: OutageModes | None = None,
        leases: LeasePolicy | None = None,
        source: SpendSource | None = None,
    ) -> None:
        self.heard = Heard()
        self.client = RedisClient(
            url, policy=policy, on_change=lambda up, _: self.governor.counters_changed(up)
        )
        self.governor = Governor(
            [one for one in rules if isinstance(one, Limit)],
            [one for one in rules if isinstance(one, Budget)],
            clock=SystemClock(),
            audience=self.heard,
            counters=RedisCounters(self.client),
            source=source,
            modes=modes,
            leases=leases,
        )

    async def start(self) -> None:
        await self.client.start()
        await self.governor.start()

    async def close(self) -> None:
        await self.governor.close()
        await self.client.close()

    async def die(self) -> None:
        """Ends as a crash would: nothing is given back, nothing is settled."""
        await self.client.close()
        await self.governor.close(drain=0.0)

    async def enter(self, wish: Demand) -> Grant:
        grant = self.governor.admit(wish)
        return grant if isinstance(grant, Grant) else await grant

    async def enter_or_not(self, wish: Demand) -> Grant | TrunklineError:
        """The grant, or the refusal."""
        try:
            return await self.enter(wish)
        except TrunklineError as error:
            return error

    async def admits(self, wish: Demand) -> bool:
        """Whether a call that lasts no time is admitted."""
        grant = await self.enter_or_not(wish)
        if isinstance(grant, TrunklineError):
            return False
        grant.settle(wish.tokens, wish.cost)
        return True


@asynccontextmanager
async def replicas(
    count: int, url: str, rules: Sequence[Limit | Budget], **options: object
) -> AsyncGenerator[list[Replica]]:
    """Replicas that run, and end in order."""
    made = [Replica(url, rules, **options) for _ in range(count)]  # type: ignore[arg-type]
    for one in made:
        await one.start()
    try:
        yield made
    finally:
        await asyncio.gather(*(one.close() for one in made))
