"""What references to secrets ask of the rest of the configuration."""

from collections.abc import Iterator

from trunkline_server.settings.cloud_auth import cloud_secrets
from trunkline_server.settings.providers import ProviderSettings
from trunkline_server.settings.schema import Settings
from trunkline_server.settings.secrets import Secret


def provider_secrets(provider: ProviderSettings) -> Iterator[tuple[str, Secret]]:
    """The secrets of a provider's headers, each with its path below the provider, the API key
    first."""
    if provider.api_key is not None:
        yield "api_key", provider.api_key
    for name, value in provider.headers.items():
        if isinstance(value, Secret):
            yield f"headers.{name}", value


def auth_secrets(provider: ProviderSettings) -> Iterator[tuple[str, Secret]]:
    """The secrets of a provider's identity in a cloud, likewise."""
    for way in ("aws", "entra", "google"):
        cloud = None if provider.auth is None else getattr(provider.auth, way)
        if cloud is not None:
            for name, value in cloud_secrets(cloud):
                yield f"auth.{way}.{name}", value


def check_secrets(settings: Settings) -> Iterator[tuple[str, str]]:
    """Complaints, as settings.checks has them."""
    referred = {
        f"secrets.master_keys.{key}": at for key, at in settings.secrets.master_keys.items()
    }
    for name, provider in settings.providers.items():
        for below, secret in (*provider_secrets(provider), *auth_secrets(provider)):
            referred[f"providers.{name}.{below}"] = secret
    for path, secret in referred.items():
        if secret.reference.startswith("vault:") and settings.secrets.vault is None:
            yield path, "needs secrets.vault, which says where Vault is"
        if secret.reference.startswith("credential:"):
            if not settings.secrets.master_keys:
                yield path, "needs secrets.master_keys, which open what the router keeps"
            if settings.state.database is None:
                yield path, "needs state.database, where credentials are kept"
    if settings.secrets.master_keys and settings.state.database is None:
        yield "secrets.master_keys", "needs state.database, where credentials are kept"
    vault = settings.secrets.vault
    if vault is not None:
        auth = vault.auth
        if auth.method and getattr(auth, auth.method) is None:
            yield "secrets.vault.auth", f"lacks {auth.method}, which its method asks for"
        if auth.approle is not None and auth.approle.secret_id is None:
            yield "secrets.vault.auth.approle", "lacks secret_id"
