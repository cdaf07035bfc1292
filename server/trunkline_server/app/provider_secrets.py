"""The secrets of providers' headers: which there are, and how several are one value."""

from collections.abc import Sequence
from dataclasses import replace

from trunkline_server.secrets.ports import SecretRefusedError, SecretSource, SecretValue
from trunkline_server.secrets.rotation import bundle
from trunkline_server.settings import Secret, Settings, is_header_safe, provider_secrets


class CheckedSource:
    """A source whose values can stand in a header."""

    def __init__(self, source: SecretSource) -> None:
        self._source = source

    async def fetch(self, reference: str) -> SecretValue:
        """As SecretSource.fetch."""
        found = await self._source.fetch(reference)
        value = replace(found, value=found.value.strip())
        if not is_header_safe(value.value):
            raise SecretRefusedError(
                f"{reference}: the secret is empty, or holds characters that no header may hold"
            )
        return value


def stored_name(secret: Secret) -> str:
    """The name of the stored credential that a secret refers to, or nothing."""
    scheme, _, name = secret.reference.partition(":")
    return name if scheme == "credential" else ""


def bundled(values: Sequence[SecretValue]) -> SecretValue:
    """Several secrets as one; see rotation.bundle."""
    return SecretValue(
        bundle([each.value for each in values]), ",".join(each.version for each in values)
    )


def fetched_paths(settings: Settings) -> dict[str, str]:
    """Where each secret that is to be fetched is first named, by its reference."""
    paths: dict[str, str] = {}
    for name, provider in settings.providers.items():
        for below, secret in provider_secrets(provider):
            if secret.managed and not stored_name(secret):
                paths.setdefault(secret.reference, f"providers.{name}.{below}")
    return paths
