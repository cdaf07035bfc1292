"""Providers that authenticate by an identity which a cloud knows."""

from dataclasses import replace
from functools import cache
from importlib.util import find_spec

from trunkline_server.catalogue.extensions import provider_rows
from trunkline_server.settings import (
    AwsAuthSettings,
    CloudAuthSettings,
    ConfigError,
    EntraAuthSettings,
    GoogleAuthSettings,
    Problem,
    ProviderSettings,
)

# By the kind of identity, the library that knows it, and the extra that installs it.
_LIBRARIES: dict[type[CloudAuthSettings], tuple[str, str]] = {
    AwsAuthSettings: ("botocore", "aws"),
    EntraAuthSettings: ("azure.identity", "azure"),
    GoogleAuthSettings: ("google.auth", "gcp"),
}


def cloud_identity(name: str, provider: ProviderSettings) -> CloudAuthSettings | None:
    """The identity of a provider that a cloud knows, its region filled in; None if it has none.

    Raises ConfigError, naming the extra to install, where the cloud's library is missing.
    """
    row = provider_rows().get(provider.kind or name)
    auth = provider.auth or (row.auth if row else None)
    cloud = None if auth is None else auth.cloud
    if cloud is None:
        return None
    library, extra = _LIBRARIES[type(cloud)]
    if not _installed(library):
        problem = f"needs the package {library}; install trunkline-server[{extra}]"
        raise ConfigError("providers", [Problem(0, f"providers.{name}.auth.{cloud.name}", problem)])
    if isinstance(cloud, AwsAuthSettings) and not cloud.region:
        return replace(cloud, region=provider.region or (row.region if row else ""))
    return cloud


@cache
def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False  # Not even the package around it.
