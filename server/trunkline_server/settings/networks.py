"""Readers of IP networks and times of day."""

import re
from ipaddress import ip_network
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from trunkline_server.settings import values as read
from trunkline_server.settings.problems import InvalidValueError
from trunkline_server.settings.values import Context
from trunkline_server.settings.yaml_source import Node

_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])\Z|24:00\Z")


def cidrs(node: Node, context: Context) -> tuple[str, ...]:
    """A list of IP networks, such as 10.0.0.0/8; an address alone is a network of one."""
    found = read.texts(node, context)
    for place, text in enumerate(found):
        problem = _wrong_network(text) if text else ""
        if problem:
            context.report(node.items[place] if node.kind == "list" else node, problem)
    return found


def _wrong_network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError:
        pass
    else:
        return ""
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        return f"{text!r} is no IP network, such as 10.0.0.0/8 or 2001:db8::/32"
    return f"{text!r} has bits beyond its prefix; write {meant}"


def time_of_day(node: Node, _context: Context) -> str:
    """HH:MM, up to 24:00."""
    # YAML may take 18:00 for a number to the base of sixty.
    if node.kind not in {"text", "number"} or not _TIME.match(node.text):
        raise InvalidValueError('write a time of day such as "08:00", up to "24:00"')
    return node.text


def time_to_start(node: Node, context: Context) -> str:
    """HH:MM, before 24:00."""
    if node.text == "24:00":
        raise InvalidValueError('write "00:00": a day begins with it')
    return time_of_day(node, context)


def time_zone(node: Node, context: Context) -> str:
    """A time zone by its IANA name."""
    name = read.text(node, context)
    try:
        if name != "UTC":
            ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # OSError for names that are directories of the database.
        raise InvalidValueError(f"no time zone is called {name!r}") from None
    return name
