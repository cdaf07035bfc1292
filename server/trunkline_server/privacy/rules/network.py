"""Addresses of machines, which lead to people."""

import re
from ipaddress import AddressValueError, IPv6Address

from trunkline_server.privacy.rule import Lead, Rule, Words

_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_VERSION_WORDS = Words(
    r"\b(?:version|release|build|section|chapter)[ :]*\Z",
    ("version", "release", "build", "section", "chapter"),
)

# RFC 791. The unspecified and the loopback networks (RFC 1122, 3.2.1.3) are nobody's.
IPV4 = Rule(
    "IP_ADDRESS",
    Lead.NUMBER,
    65,
    re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}(?![A-Za-z0-9_]|\.\d)"),
    lambda match: not match[0].startswith(("0.", "127.")) and not _VERSION_WORDS.before(match),
)


def _is_ipv6(match: re.Match[str]) -> bool:
    """RFC 4291, 2.2. Short forms without a digit are words of code more often."""
    text = match[0]
    try:
        address = IPv6Address(text)
    except AddressValueError:
        return False
    groups = sum(map(bool, text.split(":")))
    return (
        groups > 1
        and (groups > 3 or any(map(str.isdigit, text)))
        and not (address.is_loopback or address.is_unspecified)
    )


IPV6 = Rule(
    "IP_ADDRESS",
    Lead.COLON,
    66,
    re.compile(r"(?<![\w:.])[0-9A-Fa-f:]{1,38}(?:[0-9A-Fa-f]|::)(?:\.\d{1,3}){0,3}(?!:?\w)"),
    _is_ipv6,
)

# IEEE 802: 48 bits, by colons or hyphens. All zeros and all ones are no machine's.
MAC = Rule(
    "MAC_ADDRESS",
    Lead.COLON,
    68,
    re.compile(r"(?<![\w:-])[0-9A-Fa-f]{2}([:-])[0-9A-Fa-f]{2}(?:\1[0-9A-Fa-f]{2}){4}(?![\w:-])"),
    lambda match: len(set(match[0].lower()) - {":", "-"}) > 1,
)
