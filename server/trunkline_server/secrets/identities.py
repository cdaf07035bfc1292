"""Identities that clouds know, and the short-lived credentials that they give: fetched in the
background, renewed before they end, read from memory.
"""

import asyncio
import importlib
import random
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol

from trunkline import v1
from trunkline_server.clock import Clock
from trunkline_server.errors import TrunklineError, UpstreamError
from trunkline_server.secrets.ports import (
    SecretAudit,
    SecretRefusedError,
    SecretUnavailableError,
    SecretValue,
    SecretWatch,
)

# Of a credential's life, the share after which the next one is fetched. What is left has to do
# for all tries while its source is away.
_RENEW_AFTER = 0.75
# The longest wait between two tries, and the shortest between two fetches that refusals ask for.
_MOST_WAIT = 60.0
_LEAST_AGE = 10.0
# What knows of no end is fetched anew all the same: its file may have been replaced. Seconds.
_ENDLESS = 3600.0


class Identity(Protocol):
    """Who the router is to a cloud. Equal identities give the same credentials."""

    def fetch(self, what: str, timeout: float) -> SecretValue:
        """A credential, in at most about `timeout` seconds, for which it blocks; `what` is what
        errors call the identity. Raises SecretError."""
        ...


class Pool(Protocol):
    """Where blocking calls run."""

    async def run(self, what: str, call: Callable[[], SecretValue]) -> SecretValue:
        """As BlockingPool.run."""
        ...


# One cheap call with a new identity's credential; raises TrunklineError unless it is taken.
Trial = Callable[[SecretValue], Coroutine[None, None, None]]


class Held:
    """What requests of one provider are sent under. Read on the request path."""

    def __init__(self, name: str, kind: str, clock: Clock) -> None:
        """`kind` is the cloud's name in the configuration."""
        self.what = f"providers.{name}.auth.{kind}"
        self.value: SecretValue | None = None
        self.problem = "it has not been fetched yet"
        self.bell = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.fetched_at = 0.0
        # Whose the value is, and whose it is to be.
        self.identity: Identity | None = None
        self.wanted: Identity | None = None
        self.trial: Trial | None = None
        self._name = name
        self._clock = clock

    def fresh(self) -> SecretValue:
        """The credential of the moment. Raises UpstreamError with AUTHENTICATION."""
        value = self.value
        if value is None:
            raise self._lacking(self.problem)
        if value.expires is not None and self._clock.wall() >= value.expires:
            raise self._lacking(f"it has expired; {self.problem}")
        return value

    def doubted(self) -> None:
        """The provider refused the credential: the next one is fetched at once, unless it is
        new."""
        if self._clock.monotonic() - self.fetched_at >= _LEAST_AGE:
            self.bell.set()

    def _lacking(self, problem: str) -> UpstreamError:
        return UpstreamError(
            v1.ERROR_REASON_AUTHENTICATION,
            f"there is no valid credential for {self._name}: {problem}; mend {self.what}, or"
            " what it names",
            sent=False,
        )


class Keeper:
    """Keeps the credentials of identities. One task each; `close` ends them."""

    def __init__(
        self,
        pool: Pool,
        clock: Clock,
        watch: SecretWatch,
        audit: SecretAudit,
        *,
        timeout: float = 10.0,
        retry: float = 1.0,
        rng: random.Random | None = None,
    ) -> None:
        """Seconds: `timeout` of a fetch, `retry` from a failed one to the next, doubled with
        each up to a minute."""
        self._pool = pool
        self._clock = clock
        self._watch = watch
        self._audit = audit
        self._timeout = timeout
        self._retry = retry
        self._rng = rng or random.Random()  # noqa: S311 - Spreads load, keeps no secret.

    async def first(self, held: Held) -> None:
        """Fetches the first credential. Raises SecretError."""
        await self._renew(held)

    def keep(self, held: Held) -> None:
        """Keeps a credential from now on. A task that is there goes on, with what is wanted."""
        if held.task is None:
            held.task = asyncio.get_running_loop().create_task(self._run(held))
        else:
            held.bell.set()

    def forget(self, held: Held) -> None:
        """Keeps it no longer; calls under way may still read it."""
        if held.task is not None:
            held.task.cancel()
            held.task = None

    async def close(self, all_held: list[Held]) -> None:
        """Ends all tasks."""
        tasks = [held.task for held in all_held if held.task is not None]
        for held in all_held:
            self.forget(held)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, held: Held) -> None:
        failures = 0
        wait = self._until_due(held) if held.identity == held.wanted else 0.0
        while True:
            await _rings(held.bell, wait)
            held.bell.clear()
            try:
                await self._renew(held)
            except TrunklineError as error:
                held.problem = error.message
                stale = max(0.0, -self._until_due(held)) if held.value else 0.0
                self._watch.fetch_failed(f"identity:{held.what}", error.message, stale)
                wait = min(_MOST_WAIT, self._retry * 2 ** min(failures, 10))
                failures += 1
                await self._renew_old(held)
            else:
                failures = 0
                if held.identity == held.wanted:
                    # What was doubted while this was fetched was the one before.
                    held.bell.clear()
                # Spread, so that replicas that started together do not ask together.
                wait = self._until_due(held) * self._rng.uniform(0.9, 1.0)

    async def _renew(self, held: Held) -> None:
        identity = held.wanted
        if identity is None:
            raise AssertionError("a kept credential has an identity")
        value = await self._fetch(held, identity)
        if held.trial is not None and held.identity not in {None, identity}:
            await held.trial(value)
            self._audit("credential.rotate", held.what, {"version": value.version})
        held.identity, held.value = identity, value
        held.fetched_at = self._clock.monotonic()
        held.problem = "it was not renewed in time"

    async def _renew_old(self, held: Held) -> None:
        """Renews what is in use, while what is to take its place fails."""
        old = held.identity
        if old in {None, held.wanted} or old is None or self._until_due(held) > 0:
            return
        try:
            held.value = await self._fetch(held, old)
        except TrunklineError as error:
            self._watch.fetch_failed(f"identity:{held.what}", error.message, 0.0)
        else:
            held.fetched_at = self._clock.monotonic()

    async def _fetch(self, held: Held, identity: Identity) -> SecretValue:
        started = self._clock.monotonic()
        what = held.what
        try:
            value = await self._pool.run(what, partial(identity.fetch, what, self._timeout))
        except TrunklineError:
            raise
        except Exception as error:
            # Libraries raise more than they tell, and no renewal may end with it.
            kind = type(error).__name__
            raise SecretUnavailableError(f"{what}: the cloud's library failed: {kind}") from error
        if value.expires is not None and value.expires <= self._clock.wall():
            raise SecretRefusedError(f"{what}: what was given has expired already")
        reference = f"identity:{what}"
        self._watch.fetched(reference, value.version, self._clock.monotonic() - started)
        self._audit("secret.fetch", reference, {"version": value.version})
        return value

    def _until_due(self, held: Held) -> float:
        """Seconds until the next credential is to be fetched; never less than a retry's wait
        after one that came with little life left, as machines' own tokens may."""
        value = held.value
        if value is None:
            return 0.0
        age = self._clock.monotonic() - held.fetched_at
        if value.expires is None:
            return _ENDLESS - age
        life = value.expires - self._clock.wall() + age
        return max(life * _RENEW_AFTER, self._retry) - age


async def _rings(bell: asyncio.Event, seconds: float) -> None:
    """Returns when a bell rings, or when the time is over."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await bell.wait()
    except TimeoutError:
        pass


def library(what: str, module: str, extra: str) -> Any:
    """A cloud's library, imported when it is first needed; `what` needs it. Raises
    SecretRefusedError, which names the extra to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise SecretRefusedError(
            f"{what} needs the package {error.name or module}; install trunkline-server[{extra}]"
        ) from None
