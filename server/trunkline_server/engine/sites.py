"""Where addresses may lead that a provider names in its answers.

A router follows what vendors tell it with credentials in hand and from inside a network, so an
address that leads elsewhere is refused, however the vendor came to name it.
"""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from trunkline import v1
from trunkline_server.errors import UpstreamError

_PORTS = {"http": 80, "https": 443}
_PLAIN = re.compile(r"https?://[!-~]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Sites:
    """The origin of a provider's base URL, and further hosts, which are asked over TLS and
    without credentials. A host that begins with "*." stands for all below it."""

    origin: tuple[str, str, int]
    hosts: tuple[str, ...] = ()

    def own(self, url: str) -> bool:
        """Whether an address is at the provider itself, where its credentials may go.

        Raises UpstreamError for one that may not be followed at all.
        """
        scheme, host, port = found = origin_of(url)
        if found == self.origin:
            return True
        listed = any(
            host.endswith(each[1:]) if each.startswith("*.") else host == each
            for each in self.hosts
        )
        if listed and (scheme, port) == ("https", 443):
            return False
        raise UpstreamError(
            v1.ERROR_REASON_BAD_PROVIDER_RESPONSE,
            "the provider named an address at a host that is not its own",
            http_status=200,
        )


def sites_of(base_url: str, hosts: tuple[str, ...] = ()) -> Sites:
    """The sites of a provider. `base_url` is one that the settings have checked."""
    return Sites(origin_of(base_url), hosts)


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port. Raises UpstreamError for what is no plain HTTP address: readers of
    addresses do not agree on the others."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _no_address() from None
    plain = _PLAIN.fullmatch(url) is not None and not set(url) & set("\\@#")
    if not plain or parts.scheme not in _PORTS or not parts.hostname:
        raise _no_address()
    return parts.scheme, parts.hostname, port or _PORTS[parts.scheme]


def _no_address() -> UpstreamError:
    return UpstreamError(
        v1.ERROR_REASON_BAD_PROVIDER_RESPONSE,
        "the provider named something that is no HTTP address",
        http_status=200,
    )
