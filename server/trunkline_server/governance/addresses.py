"""Where calls come from: peers as gRPC names them, proxies that speak for others, allow-lists."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import unquote

IpAddress = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network

# Proxies append, so only the last hops count; a longer list is somebody's game.
_MAX_HOPS = 32
# Callers that are remembered, and the longest text of proxies among them.
_REMEMBERED = 4096
_MAX_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Networks:
    """Some IP networks; equal whatever the order they were named in.

    Made of CIDR texts such as 10.0.0.0/8 and 2001:db8::/32; an address alone is a network of
    one. Raises ValueError for anything else, and for a network with host bits set, which is
    most likely a typing error.
    """

    cidrs: tuple[str, ...]
    _networks: tuple[_Network, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        networks = {ip_network(text) for text in self.cidrs}
        ordered = sorted(networks, key=lambda one: (one.version, one.network_address.packed))
        object.__setattr__(self, "_networks", tuple(ordered))
        object.__setattr__(self, "cidrs", tuple(sorted(map(str, ordered))))

    def holds(self, address: IpAddress | None) -> bool:
        """Whether an address is in one of them; an unknown one is in none."""
        return address is not None and any(address in network for network in self._networks)


def address_of_peer(peer: str) -> IpAddress | None:
    """The address in a peer as gRPC names it, such as `ipv4:10.0.0.1:5000` or
    `ipv6:%5B::1%5D:5000`; None for unix sockets and whatever else has none.

    The naming: https://github.com/grpc/grpc/blob/master/doc/naming.md
    """
    scheme, _, rest = peer.partition(":")
    if scheme not in {"ipv4", "ipv6"}:
        return None
    return _parse(unquote(rest))


class Callers:
    """Finds the address that a call comes from.

    `trusted` are the proxies whose x-forwarded-for is believed; nobody else's is. `trust_unix`
    believes whoever connects by a unix socket, as a proxy on the same machine does.
    """

    __slots__ = ("_known", "_trust_unix", "_trusted")

    def __init__(self, trusted: Iterable[str] = (), *, trust_unix: bool = False) -> None:
        self._trusted = Networks(tuple(trusted))
        self._trust_unix = trust_unix
        # A connection's calls come from one address, or by a proxy from a few.
        self._known: dict[tuple[str, str], IpAddress | None] = {}

    def address(self, peer: str, forwarded_for: str = "") -> IpAddress | None:
        """The address of whoever calls through `peer`.

        `forwarded_for` is the value of x-forwarded-for, several joined by commas in their order.
        It is read from its end, where the nearest proxy wrote, up to the first hop that is no
        trusted proxy. None, an unknown address, when that hop cannot be read.
        """
        key = (peer, forwarded_for)
        if key in self._known:
            return self._known[key]
        address = self._find(peer, forwarded_for)
        if len(forwarded_for) <= _MAX_REMEMBERED:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = address
        return address

    def _find(self, peer: str, forwarded_for: str) -> IpAddress | None:
        address = address_of_peer(peer)
        trusted = self._trust_unix if peer.startswith("unix") else self._trusted.holds(address)
        if not trusted or not forwarded_for:
            return address
        for hop in reversed(forwarded_for.split(",")[-_MAX_HOPS:]):
            address = _parse(hop.strip())
            if not self._trusted.holds(address):
                break
        return address


def _parse(text: str) -> IpAddress | None:
    """An address with or without a port, IPv6 with or without brackets."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        # The zone names an interface of the machine that wrote it.
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        # A socket for both families reports IPv4 peers so.
        return address.ipv4_mapped
    return address
