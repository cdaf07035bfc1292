"""The secrets of providers' headers: which there are, where they are, and several as one."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from trunkline_server.clock import Clock
from trunkline_server.secrets.ports import SecretRefusedError, SecretSource, SecretValue
from trunkline_server.secrets.rotation import Pair, bundle
from trunkline_server.settings import (
    ProviderSettings,
    Secret,
    Settings,
    auth_secrets,
    is_header_safe,
    provider_secrets,
)

if TYPE_CHECKING:
    from trunkline_server.app.stored_credentials import StoredCredentials


class CheckedSource:
    """A source whose values can stand in a header, but for documents: those never do."""

    def __init__(self, source: SecretSource) -> None:
        self._source = source
        # References of documents.
        self.documents: frozenset[str] = frozenset()

    async def fetch(self, reference: str) -> SecretValue:
        """As SecretSource.fetch."""
        found = await self._source.fetch(reference)
        value = replace(found, value=found.value.strip())
        if reference not in self.documents and not is_header_safe(value.value):
            raise SecretRefusedError(
                f"{reference}: the secret is empty, or holds characters that no header may hold"
            )
        return value


class SecretsHere:
    """The values of secrets, as far as they are here: fetched ones by reference, of which some
    may be older than they may be used, stored ones, and those that come with the settings."""

    def __init__(self, stored: "StoredCredentials | None", clock: Clock) -> None:
        self._stored = stored
        self._clock = clock
        self.fetched: dict[str, SecretValue] = {}
        self.expired: set[str] = set()

    @property
    def away(self) -> str:
        """Why stored credentials cannot be read now, or nothing."""
        return "" if self._stored is None else self._stored.problem

    def value(self, secret: Secret) -> SecretValue | None:
        """A secret's value, if it is here."""
        if not secret.managed:
            return SecretValue(secret.reveal(), secret.reference)
        if name := stored_name(secret):
            stored = None if self._stored is None else self._stored.get(name)
            return None if stored is None else stored.current.value
        if secret.reference in self.expired:
            return None
        return self.fetched.get(secret.reference)

    def bundle(self, secrets: Sequence[Secret]) -> SecretValue | None:
        """What a provider is to be called with, or None if it is not all here."""
        values = [self.value(secret) for secret in secrets]
        found = [value for value in values if value is not None]
        return _bundled(found) if len(found) == len(values) else None

    def pair(self, secrets: Sequence[Secret]) -> Pair | None:
        """What a provider is to be called with, and, while one of its stored credentials is in
        its grace, what it was called with before."""
        current = self.bundle(secrets)
        if current is None:
            return None
        before, ends = [], 0.0
        for secret in secrets:
            value, kept = self.value(secret), self._kept(secret)
            if kept is not None and kept.previous is not None:
                value, ends = kept.previous, max(ends, kept.grace_ends)
            if value is not None:
                before.append(value)
        return Pair(current, _bundled(before), ends) if ends else Pair(current)

    def _kept(self, secret: Secret) -> Pair | None:
        """The pair of a stored credential."""
        stored = None if self._stored is None else self._stored.get(stored_name(secret))
        return None if stored is None else stored.pair(self._clock.wall())


def stored_name(secret: Secret) -> str:
    """The name of the stored credential that a secret refers to, or nothing."""
    scheme, _, name = secret.reference.partition(":")
    return name if scheme == "credential" else ""


def _bundled(values: Sequence[SecretValue]) -> SecretValue:
    """Several secrets as one; see rotation.bundle."""
    return SecretValue(
        bundle([each.value for each in values]), ",".join(each.version for each in values)
    )


def fetched_paths(settings: Settings) -> dict[str, str]:
    """Where each secret that is to be fetched is first named, by its reference."""
    paths: dict[str, str] = {}
    for name, provider in settings.providers.items():
        for below, secret in all_secrets(provider):
            if secret.managed and not stored_name(secret):
                paths.setdefault(secret.reference, f"providers.{name}.{below}")
    return paths


def all_secrets(provider: ProviderSettings) -> Iterator[tuple[str, Secret]]:
    """The secrets of a provider's headers and of its identity in a cloud, with their paths."""
    yield from provider_secrets(provider)
    yield from auth_secrets(provider)


def document_references(settings: Settings) -> frozenset[str]:
    """The references to secrets that are documents, such as key files."""
    return frozenset(
        secret.reference
        for provider in settings.providers.values()
        for below, secret in auth_secrets(provider)
        if below.endswith((".credentials", ".client_certificate"))
    )
