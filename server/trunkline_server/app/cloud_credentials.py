"""Providers whose requests are authenticated by an identity that a cloud knows."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from trunkline_server.app.cloud_identities import (
    CloudCredential,
    Values,
    credential_of,
    identity_of,
)
from trunkline_server.app.trials import Trial, Trials
from trunkline_server.catalogue.compile import Endpoint
from trunkline_server.clock import Clock
from trunkline_server.engine import ports as engine
from trunkline_server.engine.table import FixedCredential
from trunkline_server.secrets.identities import Held, Keeper
from trunkline_server.secrets.ports import (
    SecretAudit,
    SecretError,
    SecretRefusedError,
    SecretValue,
    SecretWatch,
)
from trunkline_server.secrets.threads import BlockingPool
from trunkline_server.settings import (
    CloudAuthSettings,
    Secret,
    SecretsSettings,
)

if TYPE_CHECKING:
    pass

# Fetches at the same time; each has a thread.
_WORKERS = 4


class CloudCredentials:
    """The credentials of the table's providers that have such an identity."""

    def __init__(
        self,
        settings: SecretsSettings,
        clock: Clock,
        trials: Trials,
        watch: SecretWatch,
        audit: SecretAudit,
    ) -> None:
        self._clock = clock
        self._trials = trials
        self._pool = BlockingPool(_WORKERS, settings.fetch_timeout)
        self._keeper = Keeper(
            self._pool,
            clock,
            watch,
            audit,
            timeout=settings.fetch_timeout,
            retry=settings.retry,
        )
        self._held: dict[str, tuple[Endpoint | None, Held]] = {}

    async def first(self, name: str, auth: CloudAuthSettings, values: Values) -> None:
        """Fetches a provider's first credential, for a table still to be made. Raises
        SecretError."""
        held = Held(name, auth.name, self._clock)
        held.wanted = identity_of(auth, values)
        self._held[name] = None, held
        try:
            await self._keeper.first(held)
        except SecretError as error:
            held.problem = error.message
            raise

    def of(
        self, name: str, endpoint: Endpoint, values: Values, inner: engine.Credential
    ) -> CloudCredential:
        """The credential of an endpoint of the table to come; `inner` has its other headers."""
        auth = endpoint.cloud
        if auth is None:
            raise AssertionError("an endpoint with an identity")
        before, held = self._held.get(name, (None, None))
        if before is not None and not _same_place(before, endpoint):
            # What another host was shown is not shown to this one.
            self.drop(name)
            held = None
        if held is None:
            held = Held(name, auth.name, self._clock)
        held.trial = partial(self._try, endpoint, inner)
        self._held[name] = endpoint, held
        self.turn(name, values)
        return credential_of(endpoint, held, inner, self._clock)

    def turn(self, name: str, values: Values) -> None:
        """Has a provider's identity changed to what it is to be by now; as long as its secrets
        are not all here it stays what it was."""
        endpoint, held = self._held.get(name, (None, None))
        if endpoint is None or endpoint.cloud is None or held is None:
            return
        wanted = identity_of(endpoint.cloud, values)
        if wanted is None:
            held.problem = "its secrets are still to come"
        elif wanted != held.wanted or held.task is None:
            held.wanted = wanted
            self._keeper.keep(held)

    async def verdict(
        self, endpoint: Endpoint, values: Values, instead: tuple[Secret, str]
    ) -> Trial:
        """What the cloud and the provider say of an identity with another secret in it."""

        def changed(secret: Secret) -> SecretValue | None:
            return SecretValue(instead[1], "") if secret == instead[0] else values(secret)

        identity = None if endpoint.cloud is None else identity_of(endpoint.cloud, changed)
        if identity is None:
            return Trial("skipped", "other secrets of the identity are still to come")
        what = f"the trial at {endpoint.name}"
        fetch = partial(identity.fetch, what, self._pool.timeout)
        try:
            value = await self._pool.run(what, fetch)
        except SecretRefusedError:
            return Trial("refused", "by the cloud")
        except SecretError:
            return Trial("unreachable", "the cloud gave no answer")
        credential = self._on_trial(endpoint, FixedCredential(endpoint.headers), value)
        return await self._trials.verdict(endpoint, credential.headers, credential.sign)

    def drop(self, name: str) -> None:
        """Keeps a provider's credential no longer."""
        _, held = self._held.pop(name, (None, None))
        if held is not None:
            self._keeper.forget(held)

    def retain(self, names: Mapping[str, object]) -> None:
        """Drops all that are not among some providers."""
        for name in self._held.keys() - names.keys():
            self.drop(name)

    async def close(self) -> None:
        """Ends what runs in the background."""
        await self._keeper.close([held for _, held in self._held.values()])
        self._pool.close()

    async def _try(self, endpoint: Endpoint, inner: engine.Credential, value: SecretValue) -> None:
        """One cheap call under a new identity. Raises TrunklineError unless it is taken."""
        credential = self._on_trial(endpoint, inner, value)
        await self._trials.require(endpoint, credential.headers, credential.sign)

    def _on_trial(
        self, endpoint: Endpoint, inner: engine.Credential, value: SecretValue
    ) -> CloudCredential:
        held = Held(endpoint.name, "", self._clock)
        held.value = value
        return credential_of(endpoint, held, inner, self._clock)


def _same_place(before: Endpoint, after: Endpoint) -> bool:
    """Whether what one endpoint was shown may be shown to the other."""
    return (before.base_url, before.dialect, type(before.cloud)) == (
        *(after.base_url, after.dialect, type(after.cloud)),
    )
