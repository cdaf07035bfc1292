"""The credentials of one process's providers: fetched at its start, renewed, and changed under
its calls."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from trunkline import v1
from trunkline_server.app.cloud_credentials import CloudCredentials
from trunkline_server.app.provider_secrets import (
    CheckedSource,
    SecretsHere,
    all_secrets,
    document_references,
    fetched_paths,
    stored_name,
)
from trunkline_server.app.trials import Trial, Trials
from trunkline_server.catalogue.clouds import cloud_identity
from trunkline_server.catalogue.compile import Endpoint
from trunkline_server.clock import Clock
from trunkline_server.engine import ports as engine
from trunkline_server.engine.table import FixedCredential
from trunkline_server.errors import TrunklineError
from trunkline_server.secrets.ports import (
    Headers,
    SecretAudit,
    SecretRefusedError,
    SecretSource,
    SecretValue,
)
from trunkline_server.secrets.refresher import Refresher, RefreshPolicy
from trunkline_server.secrets.rotation import CredentialVault
from trunkline_server.settings import (
    ConfigError,
    Problem,
    ProviderSettings,
    Secret,
    SecretsSettings,
    Settings,
    cloud_secrets,
)
from trunkline_server.telemetry.secrets import SecretLog
from trunkline_server.upstream.http import HttpClient

if TYPE_CHECKING:
    from trunkline_server.app.credential_service import CredentialService
    from trunkline_server.app.stored_credentials import StoredCredentials


def _nobody() -> None:
    """Hears that providers came or went, before anybody listens."""


class Credentials:
    """What the providers of the configuration in force are called with.

    The secrets of a provider are one value, changed as a whole: see rotation.bundle. Values of
    env: and file: come with the settings, others are fetched and renewed here. A provider that
    lacks one is out of use until it comes.
    """

    def __init__(
        self,
        settings: SecretsSettings,
        source: SecretSource,
        http: HttpClient,
        clock: Clock,
        *,
        log: SecretLog,
        audit: SecretAudit,
        stored: "StoredCredentials | None" = None,
    ) -> None:
        """`stored` None knows no credential that the router keeps."""
        if stored is not None:
            stored.on_change = self._stored_changed
        self._here = SecretsHere(stored, clock)
        self._settings = settings
        self._trials = Trials(http, on=settings.canary)
        self._log = log
        self._audit = audit
        self._vault = CredentialVault(clock, self._try, self._heard)
        self._clouds = CloudCredentials(settings, clock, self._trials, log, audit)
        self._source = CheckedSource(source)
        self._refresher = Refresher(
            self._source,
            clock,
            self,
            audit,
            policy=RefreshPolicy(settings.refresh_interval, settings.retry),
        )
        # Of the table in force: all, and those that have what they need.
        self._known: Mapping[str, Endpoint] = {}
        self._endpoints: dict[str, Endpoint] = {}
        # As the settings have them: those of the table to come, and those that are called.
        self._asked: Mapping[str, ProviderSettings] = {}
        self._settled: dict[str, ProviderSettings] = {}
        # By reference, those that are still to be had; by provider, changes under way.
        self._fetching: dict[str, asyncio.Task[None]] = {}
        self._turns: dict[str, _Turn] = {}
        # What the control plane manages; None where nothing is stored.
        self.service: CredentialService | None = None
        # Called when a provider comes into use, or falls out of it.
        self.on_change: Callable[[], None] = _nobody

    async def start(self, settings: Settings) -> None:
        """Fetches every secret that the settings name, and what their identities give.

        Raises ConfigError for one that its manager refuses and OSError for one that cannot be
        had now, unless their providers are to be skipped.
        """
        paths = fetched_paths(settings)
        self._source.documents = document_references(settings)
        self._require_stored(settings)
        await self._first({each: (path, self._keep(each)) for each, path in paths.items()})
        identities: dict[str, tuple[str, Coroutine[None, None, None]]] = {}
        for name, provider in settings.providers.items():
            auth = cloud_identity(name, provider)
            if auth is not None and all(self._here.value(each) for _, each in cloud_secrets(auth)):
                path = f"providers.{name}.auth.{auth.name}"
                first = self._clouds.first(name, auth, self._here.value)
                identities[f"identity:{path}"] = path, first
        await self._first(identities)

    async def _first(self, fetches: Mapping[str, tuple[str, Coroutine[None, None, None]]]) -> None:
        """Makes the first fetches of a start, by what is fetched, each with its path."""
        outcomes = await asyncio.gather(
            *(fetch for _, fetch in fetches.values()), return_exceptions=True
        )
        for (reference, (path, _)), error in zip(fetches.items(), outcomes, strict=True):
            if error is None:
                continue
            if not isinstance(error, TrunklineError):
                raise error
            if self._settings.on_missing == "skip":
                self._log.fetch_failed(reference, error.message, 0.0)
            elif isinstance(error, SecretRefusedError):
                raise ConfigError("secrets", [Problem(0, path, error.message)]) from None
            else:
                raise OSError(f"{path}: {error.message}")

    def _require_stored(self, settings: Settings) -> None:
        if self._settings.on_missing == "skip":
            return
        for name, provider in settings.providers.items():
            for below, secret in all_secrets(provider):
                if not stored_name(secret) or self._here.value(secret) is not None:
                    continue
                path = f"providers.{name}.{below}"
                if self._here.away:
                    raise OSError(f"{path}: {secret.reference}: {self._here.away}")
                problem = f"{secret.reference}: there is no such credential, or it cannot be read"
                raise ConfigError("secrets", [Problem(0, path, problem)])

    def available(self, settings: Settings) -> Settings:
        """The settings without the deployments of providers that lack a secret.

        One that is called with others until its new ones come is not among them. What is passed
        through to such a provider goes there without it, and is refused.
        """
        self._asked = settings.providers
        lacking: dict[str, str] = {}
        for name, provider in settings.providers.items():
            missing = [
                secret.reference
                for _, secret in all_secrets(provider)
                if self._here.value(secret) is None
            ]
            if missing and not self._keeps(name, missing):
                lacking[name] = missing[0]
        if not lacking:
            return settings
        for name, reference in lacking.items():
            self._log.missing(name, reference)
        deployments = tuple(
            replace(row, enabled=False) if row.provider in lacking else row
            for row in settings.deployments
        )
        return replace(settings, deployments=deployments)

    def of(self, endpoints: Mapping[str, Endpoint]) -> Mapping[str, engine.Credential]:
        """The credential of every endpoint of a table that is to be in force.

        A changed secret is no other credential: it is tried, and then changed under the calls.
        """
        used = {
            secret.reference
            for endpoint in endpoints.values()
            for secret in _secrets(endpoint)
            if secret.managed and not stored_name(secret)
        }
        self._known = dict(endpoints)
        for reference in used - self._here.fetched.keys() - self._fetching.keys():
            self._fetching[reference] = asyncio.create_task(self._fetch(reference))
        for reference in (self._here.fetched.keys() | self._fetching.keys()) - used:
            self._forget(reference)
        for name in self._endpoints.keys() - endpoints.keys():
            self._drop(name)
        self._clouds.retain({name: each for name, each in endpoints.items() if each.cloud})
        found = {name: self._of(name, endpoint) for name, endpoint in endpoints.items()}
        for name, endpoint in endpoints.items():
            if endpoint.cloud is not None:
                found[name] = self._clouds.of(name, endpoint, self._here.value, found[name])
        return found

    async def close(self) -> None:
        """Ends what runs in the background."""
        tasks = [*self._fetching.values(), *(turn.task for turn in self._turns.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._refresher.close()
        await self._clouds.close()
        for name in list(self._endpoints):
            self._drop(name)

    def fetched(self, reference: str, version: str, seconds: float) -> None:
        """As SecretWatch.fetched."""
        self._log.fetched(reference, version, seconds)
        if reference in self._here.expired:
            self._here.expired.discard(reference)
            self.on_change()

    def fetch_failed(self, reference: str, problem: str, stale_for: float) -> None:
        """As SecretWatch.fetch_failed."""
        self._log.fetch_failed(reference, problem, stale_for)
        most = self._settings.max_stale
        if most and stale_for > most and reference not in self._here.expired:
            self._here.expired.add(reference)
            self.on_change()

    def _of(self, name: str, endpoint: Endpoint) -> engine.Credential:
        before = self._endpoints.get(name)
        wanted = self._here.bundle(endpoint.secrets)
        missing = [each.reference for each in endpoint.secrets if self._here.value(each) is None]
        if missing and self._keeps(name, missing):
            return self._vault.credential(name)
        if wanted is None or not endpoint.secrets:
            self._drop(name)
            known = [value.value for each in endpoint.secrets if (value := self._here.value(each))]
            return FixedCredential(endpoint.headers, tuple(known))
        if before is not None and not _same_place(before, endpoint):
            # What another host was shown is not shown to this one.
            self._drop(name)
        self._endpoints[name] = endpoint
        self._settled[name] = self._asked[name]
        self._vault.load(name, wanted, lambda value: endpoint.render(value.split("\n")))
        pair = self._here.pair(endpoint.secrets)
        if before is None and pair is not None and pair.previous is not None:
            # A grace that began before this process did.
            self._vault.adopt(name, pair)
        held = self._vault.credential(name)
        if held.current.value.value != wanted.value:
            self._turn(name)
        return held

    def _keeps(self, name: str, missing: Sequence[str]) -> bool:
        """Whether a provider is called as before until what is missing of its secrets comes: it
        is where it was, and nothing that it has was withdrawn."""
        before, after = self._settled.get(name), self._asked[name]
        return (
            before is not None
            and (before.kind, before.dialect, before.base_url)
            == (after.kind, after.dialect, after.base_url)
            and all(self._awaited(reference) for reference in missing)
        )

    def _awaited(self, reference: str) -> bool:
        """Whether a secret never was here, and is not one that was withdrawn."""
        return reference not in self._here.expired and not any(
            reference == secret.reference
            for _, provider in self._settled.items()
            for _, secret in all_secrets(provider)
        )

    def _drop(self, name: str) -> None:
        self._endpoints.pop(name, None)
        self._settled.pop(name, None)
        turn = self._turns.pop(name, None)
        if turn is not None:
            turn.task.cancel()
        self._vault.forget(name)

    def _stored_changed(self, name: str) -> None:
        """Takes over a stored credential, which was tried by whoever wrote it."""
        for provider, endpoint in self._known.items():
            if any(stored_name(secret) == name for secret in _cloud_secrets(endpoint)):
                self._clouds.turn(provider, self._here.value)
            if not any(stored_name(secret) == name for secret in endpoint.secrets):
                continue
            pair = self._here.pair(endpoint.secrets)
            if pair is None or provider not in self._endpoints:
                # It falls out of use, or comes into it.
                self.on_change()
                return
            held = self._vault.pair(provider)
            if (pair.current, pair.previous) != (held.current, held.previous):
                self._vault.adopt(provider, pair)

    async def trial(self, provider: str, name: str, value: str) -> Trial:
        """Tries a value for a stored credential at a provider, in place of its credential of
        that name, or else of its first. Raises FAILED_PRECONDITION for a provider that is none.
        """
        endpoint = self._known.get(provider)
        if endpoint is not None:
            for secret in _cloud_secrets(endpoint):
                if stored_name(secret) == name or not endpoint.secrets:
                    return await self._clouds.verdict(endpoint, self._here.value, (secret, value))
        if endpoint is None or not endpoint.secrets:
            raise TrunklineError(
                v1.ERROR_REASON_FAILED_PRECONDITION,
                f"{provider!r} is no provider with a credential at which one could be tried",
            )
        names = [stored_name(secret) for secret in endpoint.secrets]
        place = names.index(name) if name in names else 0
        values = [
            found.value if (found := self._here.value(each)) else "" for each in endpoint.secrets
        ]
        values[place] = value
        return await self._trials.verdict(endpoint, endpoint.render(values))

    def users(self, name: str) -> list[str]:
        """The providers of the table in force that refer to a stored credential."""
        return [
            provider
            for provider, endpoint in self._known.items()
            if any(stored_name(secret) == name for secret in _secrets(endpoint))
        ]

    async def _keep(self, reference: str) -> None:
        async def changed(value: SecretValue) -> None:
            self._here.fetched[reference] = value
            for name, endpoint in self._endpoints.items():
                if any(secret.reference == reference for secret in endpoint.secrets):
                    self._turn(name)
            for name, endpoint in self._known.items():
                if any(secret.reference == reference for secret in _cloud_secrets(endpoint)):
                    self._clouds.turn(name, self._here.value)

        self._here.fetched[reference] = await self._refresher.keep(reference, changed)

    async def _fetch(self, reference: str) -> None:
        """Fetches a secret that is not here yet, until it is."""
        wait = self._settings.retry
        while True:
            try:
                await self._keep(reference)
            except TrunklineError as error:
                self._log.fetch_failed(reference, error.message, 0.0)
            else:
                break
            await asyncio.sleep(wait)
            wait = min(2 * wait, self._settings.refresh_interval)
        del self._fetching[reference]
        self.on_change()

    def _forget(self, reference: str) -> None:
        task = self._fetching.pop(reference, None)
        if task is not None:
            task.cancel()
        self._here.fetched.pop(reference, None)
        self._here.expired.discard(reference)
        self._refresher.forget(reference)

    def _turn(self, name: str) -> None:
        """Has a provider's credential changed to what it is to be."""
        turn = self._turns.get(name)
        if turn is None or turn.task.done():
            turn = _Turn()
            turn.task = asyncio.create_task(self._change(name, turn))
            self._turns[name] = turn
        # A value that waits for its next trial may be another one now.
        turn.hurry.set()

    async def _change(self, name: str, turn: "_Turn") -> None:
        """Changes a credential as soon as its provider takes the new one."""
        wait = self._settings.retry
        while True:
            turn.hurry.clear()
            wanted = self._here.bundle(self._endpoints[name].secrets)
            if wanted is None or wanted.value == self._vault.credential(name).current.value.value:
                return
            try:
                await self._vault.rotate(name, wanted, self._settings.grace)
            except TrunklineError as error:
                self._log.not_changed(name, error.message, wait)
                if await _rings(turn.hurry, wait):
                    wait = self._settings.retry
                else:
                    wait = min(2 * wait, self._settings.refresh_interval)

    async def _try(self, provider: str, headers: Headers) -> None:
        """One cheap authenticated call; a secrets.ports.Probe."""
        await self._trials.require(self._endpoints[provider], headers)

    def _heard(self, action: str, name: str, detail: Mapping[str, str]) -> None:
        self._audit(action, name, detail)
        self._log.changed(action, name, detail)


class _Turn:
    """A change of a credential under way; `hurry` ends the wait for its next trial."""

    task: asyncio.Task[None]

    def __init__(self) -> None:
        self.hurry = asyncio.Event()


async def _rings(bell: asyncio.Event, seconds: float) -> bool:
    """Whether a bell rings within the time."""
    try:
        async with asyncio.timeout(seconds):
            await bell.wait()
    except TimeoutError:
        return False
    return True


def _cloud_secrets(endpoint: Endpoint) -> list[Secret]:
    return [] if endpoint.cloud is None else [each for _, each in cloud_secrets(endpoint.cloud)]


def _secrets(endpoint: Endpoint) -> list[Secret]:
    return [*endpoint.secrets, *_cloud_secrets(endpoint)]


def _same_place(before: Endpoint, after: Endpoint) -> bool:
    """Whether secrets that one endpoint was shown may be shown to the other, as they stand."""
    return (before.base_url, before.dialect, len(before.secrets)) == (
        *(after.base_url, after.dialect, len(after.secrets)),
    )
