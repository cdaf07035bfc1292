"""Fetched secrets, held in memory and renewed in the background: a call never waits for one."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from trunkline_server.clock import Clock
from trunkline_server.errors import TrunklineError
from trunkline_server.secrets.ports import (
    SecretAudit,
    SecretSource,
    SecretUnavailableError,
    SecretValue,
    SecretWatch,
)

OnChange = Callable[[SecretValue], Coroutine[None, None, None]]


@dataclass(frozen=True, slots=True)
class RefreshPolicy:
    """Seconds throughout.

    A secret is fetched again after `interval`, or after four fifths of its life if that is
    sooner. A failed fetch is repeated after `retry`, then twice that, up to the interval. The
    last value is kept for `max_stale` after it was due; after that there is none.
    """

    interval: float = 300.0
    retry: float = 1.0
    max_stale: float = 86_400.0


@dataclass(slots=True)
class _Held:
    value: SecretValue
    due: float
    told: bool
    on_change: OnChange | None
    task: asyncio.Task[None] | None = field(default=None)


class Refresher:
    """Keeps the secrets that references name. One task per reference; `close` ends them."""

    def __init__(
        self,
        source: SecretSource,
        clock: Clock,
        watch: SecretWatch,
        audit: SecretAudit,
        *,
        policy: RefreshPolicy | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._source = source
        self._clock = clock
        self._watch = watch
        self._audit = audit
        self._policy = policy or RefreshPolicy()
        self._rng = rng or random.Random()  # noqa: S311 - Spreads load, keeps no secret.
        self._held: dict[str, _Held] = {}

    async def keep(self, reference: str, on_change: OnChange | None = None) -> SecretValue:
        """Fetches a secret and keeps it fresh from now on; gives its first value.

        `on_change` is awaited with every later value that differs; as long as it raises
        TrunklineError, it is called again with each fetch. Raises SecretError when the first
        fetch fails: nothing is then kept. Keeping a reference again replaces `on_change`.
        """
        value = await self._fetch(reference)
        held = _Held(value, self._due(value), True, on_change)
        self._stop(self._held.get(reference))
        self._held[reference] = held
        held.task = asyncio.get_running_loop().create_task(self._renew(reference, held))
        return value

    def get(self, reference: str) -> SecretValue:
        """The value in use, without waiting. Raises KeyError for a reference that is not kept,
        and SecretUnavailableError for a value that is staler than allowed."""
        held = self._held[reference]
        if self._clock.monotonic() > held.due + self._policy.max_stale:
            raise SecretUnavailableError(
                f"{reference}: its source has been away for longer than"
                f" {self._policy.max_stale:g} s"
            )
        return held.value

    def forget(self, reference: str) -> None:
        """Keeps a secret no longer."""
        self._stop(self._held.pop(reference, None))

    async def refresh(self, reference: str) -> SecretValue:
        """Fetches a kept secret now, whatever its age. Raises SecretError."""
        held = self._held[reference]
        await self._renew_once(reference, held)
        return held.value

    async def close(self) -> None:
        """Ends all tasks and forgets all values."""
        tasks = [held.task for held in self._held.values() if held.task is not None]
        for reference in list(self._held):
            self.forget(reference)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, reference: str) -> SecretValue:
        started = self._clock.monotonic()
        value = await self._source.fetch(reference)
        self._watch.fetched(reference, value.version, self._clock.monotonic() - started)
        self._audit("secret.fetch", reference, {"version": value.version})
        return value

    async def _renew(self, reference: str, held: _Held) -> None:
        failures = 0
        wait = held.due - self._clock.monotonic()
        while True:
            # Spread, so that replicas that started together do not ask together.
            await asyncio.sleep(max(0.0, wait) * self._rng.uniform(0.9, 1.0))
            try:
                await self._renew_once(reference, held)
            except TrunklineError as error:
                stale = max(0.0, self._clock.monotonic() - held.due)
                self._watch.fetch_failed(reference, error.message, stale)
                wait = min(self._policy.interval, self._policy.retry * 2 ** min(failures, 30))
                failures += 1
            else:
                failures = 0
                wait = held.due - self._clock.monotonic()

    async def _renew_once(self, reference: str, held: _Held) -> None:
        value = await self._fetch(reference)
        held.due = self._due(value)
        if value.value != held.value.value:
            held.told = False
        held.value = value
        if not held.told and held.on_change is not None:
            await held.on_change(value)
        held.told = True

    def _due(self, value: SecretValue) -> float:
        """When to fetch again, by the monotonic clock."""
        wait = self._policy.interval
        if value.expires is not None:
            wait = min(wait, (value.expires - self._clock.wall()) * 0.8)
        return self._clock.monotonic() + max(wait, self._policy.retry)

    @staticmethod
    def _stop(held: _Held | None) -> None:
        if held is not None and held.task is not None:
            held.task.cancel()
