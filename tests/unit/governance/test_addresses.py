"""Where a call comes from, and whose word is believed about it."""

from ipaddress import ip_address

import pytest

from trunkline_server.governance.addresses import Callers, Networks, address_of_peer


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.1.2.3:5000", "10.1.2.3"),
        ("ipv6:[2001:db8::1]:5000", "2001:db8::1"),
        ("ipv6:%5B2001:db8::1%5D:5000", "2001:db8::1"),
        ("ipv6:[::ffff:10.1.2.3]:5000", "10.1.2.3"),
        ("ipv6:%5Bfe80::1%25eth0%5D:5000", "fe80::1"),
        ("unix:", None),
        ("unix:/run/trunkline.sock", None),
        ("", None),
        ("ipv4:", None),
        ("ipv4:nonsense:1", None),
        ("dns:10.1.2.3:5000", None),
    ],
)
def test_a_peer_as_grpc_names_it(peer: str, address: str | None) -> None:
    assert address_of_peer(peer) == (None if address is None else ip_address(address))


CALLERS = Callers(["10.0.0.0/8", "2001:db8:1::/48"])
PROXY = "ipv4:10.0.0.9:4000"


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        # Nobody who is not trusted speaks for others.
        ("ipv4:192.0.2.7:4000", "198.51.100.1", "192.0.2.7"),
        (PROXY, "", "10.0.0.9"),
        (PROXY, "198.51.100.1", "198.51.100.1"),
        # What the caller itself wrote stands further to the left.
        (PROXY, "1.1.1.1, 198.51.100.1", "198.51.100.1"),
        (PROXY, "1.1.1.1, 198.51.100.1, 10.0.0.8", "198.51.100.1"),
        (PROXY, "10.0.0.7, 10.0.0.8", "10.0.0.7"),
        (PROXY, "198.51.100.1:6000", "198.51.100.1"),
        (PROXY, "[2001:db8:2::5]:6000", "2001:db8:2::5"),
        (PROXY, "2001:db8:2::5", "2001:db8:2::5"),
        ("ipv6:[2001:db8:1::9]:1", "203.0.113.5", "203.0.113.5"),
        # A hop that cannot be read is not guessed at, nor skipped.
        (PROXY, "198.51.100.1, unknown", None),
        (PROXY, "198.51.100.1, ", None),
        (PROXY, "unknown, 198.51.100.1", "198.51.100.1"),
        ("unix:/run/x", "198.51.100.1", None),
    ],
)
def test_proxies_that_are_trusted_and_others(
    peer: str, forwarded: str, address: str | None
) -> None:
    # The second time from memory.
    for _ in range(2):
        found = CALLERS.address(peer, forwarded)
        assert found == (None if address is None else ip_address(address))


def test_what_is_remembered_of_callers_is_bounded() -> None:
    callers = Callers(["10.0.0.0/8"])
    for number in range(10_000):
        callers.address(f"ipv4:192.0.2.1:{number}")
    assert len(callers._known) <= 4096
    before = len(callers._known)
    long = ", ".join(["198.51.100.1"] * 100)
    assert callers.address(PROXY, long) == ip_address("198.51.100.1")
    assert len(callers._known) == before


def test_a_proxy_behind_a_unix_socket_is_trusted_if_told_so() -> None:
    callers = Callers(trust_unix=True)
    assert callers.address("unix:/run/x", "198.51.100.1") == ip_address("198.51.100.1")
    assert callers.address("unix:/run/x") is None


def test_networks_hold_what_they_name() -> None:
    networks = Networks(("10.0.0.0/8", "192.0.2.7", "2001:db8::/32"))
    for text in ("10.255.0.1", "192.0.2.7", "2001:db8:ffff::1"):
        assert networks.holds(ip_address(text))
    for text in ("11.0.0.1", "192.0.2.8", "2001:db9::1", "::ffff:10.0.0.1"):
        assert not networks.holds(ip_address(text))
    assert not networks.holds(None)
    assert not Networks(()).holds(ip_address("10.0.0.1"))


def test_networks_are_equal_when_they_hold_the_same() -> None:
    one = Networks(("10.0.0.0/8", "::1"))
    assert one == Networks(("::1/128", "10.0.0.0/8", "10.0.0.0/8"))
    assert hash(one) == hash(Networks(("::1", "10.0.0.0/8")))


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "localhost", ""])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - The standard library's own words.
        Networks((text,))
