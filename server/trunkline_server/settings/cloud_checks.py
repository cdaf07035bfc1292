"""Where providers are, and the identities that they are asked under there."""

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from trunkline_server.settings.cloud_auth import AwsAuthSettings, CloudAuthSettings
from trunkline_server.settings.known import ProviderKind
from trunkline_server.settings.providers import ProviderSettings, place_of

# What stands in place of a name in a URL.
_REGION = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*\Z")
_PLACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*\Z")

Complaint = tuple[str, str]


def cloud_of(provider: ProviderSettings, kind: ProviderKind | None) -> CloudAuthSettings | None:
    """The identity of a provider that a cloud knows, its own or its kind's."""
    auth = provider.auth or (kind.auth if kind else None)
    return None if auth is None else auth.cloud


def check_place(
    path: str,
    provider: ProviderSettings,
    kind: ProviderKind | None,
    references: Sequence[str] | None,
) -> Iterator[Complaint]:
    """Complaints of where a provider is, and of who it is asked as there; `references` are what
    the store may refer to, None for what it does not hold."""
    region = provider.region or (kind.region if kind else "")
    url = provider.base_url
    if not url and kind is not None:
        url = kind.base_urls.get(region, kind.base_url)
    for name, value in place_of(url, region, provider.flags).items():
        at = f"{path}.region" if name == "region" else f"{path}.flags.{name}"
        if not value:
            yield at, f"is missing; the URL is {url}"
        elif not (_REGION if name == "region" else _PLACE).match(value):
            yield at, f"is {value!r}, which cannot stand in the URL {url}"
    cloud = cloud_of(provider, kind)
    if isinstance(cloud, AwsAuthSettings) and not (cloud.region or region):
        yield f"{path}.region", "is missing; requests are signed for a region, such as us-east-1"
    yield from _identity(path, provider, cloud, references)


def _identity(
    path: str,
    provider: ProviderSettings,
    cloud: CloudAuthSettings | None,
    references: Sequence[str] | None,
) -> Iterator[Complaint]:
    if cloud is None:
        return
    if provider.api_key is not None:
        yield f"{path}.api_key", "stands beside an identity of a cloud in auth; write one of them"
    if provider.auth is not None:
        return
    # The kind's, which is the router's own. Where it is written, its reader has looked.
    if provider.base_url:
        yield (
            f"{path}.base_url",
            "is not the kind's, to which alone the router's own identity is shown unasked; write "
            f"auth: {{{cloud.name}: {{}}}} to have it shown there",
        )
    if references is not None and not any(
        fnmatchcase(f"identity:{cloud.name}", each) for each in references
    ):
        yield path, f"uses identity:{cloud.name}, which state.references does not permit"
