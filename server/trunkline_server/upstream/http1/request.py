"""Requests as bytes.

What repeats from call to call, the request line and the names of the header fields, is checked
once and kept. The lines may hold credentials: their memory belongs to one client, is bounded,
and stands in no repr.
"""

import re
from typing import Any, NamedTuple

from trunkline_server.upstream.http import HttpRequest

# How many request lines and field names are kept; a full memory is emptied.
_MEMORY = 512

# RFC 9110, 5.6.2 and 5.5: names are tokens; values hold no control character but the tab.
# Half surrogate pairs cannot be encoded.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_UNFIT_VALUE = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>(?:/[!-\"$->@-~]*)?(?:\?[!-\"$-~]*)?)(?:#[!-~]*)?"
)
_DEFAULT_PORTS = {"http": 80, "https": 443}

# Written by this client; from elsewhere they could only contradict it.
_OWN_FIELDS = frozenset({"content-length", "transfer-encoding"})
# Added where the caller gives none; each with a bit of its own.
_OPTIONAL_FIELDS = {"host": 1, "accept": 2, "accept-encoding": 4, "user-agent": 8}
# Methods whose requests say that they have no body (RFC 9110, 8.6).
_BODIED = frozenset({"POST", "PUT", "PATCH"})


class Origin(NamedTuple):
    """What connections are made to. `host` is a name or an address without brackets."""

    tls: bool
    host: str
    port: int

    @property
    def peer(self) -> str:
        """host:port, for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class _Line(NamedTuple):
    """The start of every request to one URL with one method."""

    origin: Origin
    start: str
    host: str
    # The line of the body's length if there is no body; empty when it goes without one.
    length_if_empty: str


class _Name(NamedTuple):
    """The start of every field of one name, and its bit if it is one that may be added."""

    start: str
    bit: int


class RequestEncoder:
    """Serialises requests; `encodings` are what their responses may be compressed with."""

    def __init__(self, user_agent: str, encodings: str) -> None:
        _check("user-agent", user_agent)
        own = {"accept": "*/*", "accept-encoding": encodings, "user-agent": user_agent}
        # What is added, by which of the fields that may be added were given.
        self._added = [
            "".join(
                f"{name}: {value}\r\n"
                for name, value in own.items()
                if not given & _OPTIONAL_FIELDS[name]
            )
            for given in range(2 ** len(_OPTIONAL_FIELDS))
        ]
        self._lines: dict[tuple[str, str], _Line] = {}
        self._names: dict[str, _Name] = {}

    def encode(self, request: HttpRequest) -> tuple[Origin, bytes]:
        """Where the request goes, and all of it but the body.

        Raises ValueError for what HTTP cannot carry; the message quotes none of it.
        """
        key = (request.method, request.url)
        line = self._lines.get(key)
        if line is None:
            line = _remember(self._lines, key, _line(*key))
        known = self._names
        given = 0
        fields = ""
        for name, value in request.headers:
            start, bit = known.get(name) or _remember(known, name, _name(name))
            given |= bit
            # The first look is the cheap one, at what nearly all values are.
            if not (value.isascii() and value.isprintable()):
                _check(name, value)
            fields += f"{start}{value}\r\n"
        host = "" if given & _OPTIONAL_FIELDS["host"] else line.host
        size = len(request.body)
        length = f"content-length: {size}\r\n" if size else line.length_if_empty
        head = f"{line.start}{host}{fields}{self._added[given]}{length}\r\n"
        return line.origin, head.encode()


def _remember(memory: dict[Any, Any], key: Any, value: Any) -> Any:
    if len(memory) >= _MEMORY:
        memory.clear()
    memory[key] = value
    return value


def _line(method: str, url: str) -> _Line:
    if _TOKEN.fullmatch(method) is None:
        raise ValueError("the request's method is not a token")
    parsed = _URL.fullmatch(url)
    if parsed is None:
        raise ValueError("the request's URL is not an encoded absolute http or https URL")
    scheme = parsed["scheme"]
    default = _DEFAULT_PORTS[scheme]
    port = default if parsed["port"] is None else int(parsed["port"])
    if not 0 < port < 65536:
        raise ValueError("the request's URL has a port that does not exist")
    host = parsed["host"].lower()
    target = parsed["target"]
    if not target.startswith("/"):
        target = "/" + target
    authority = host if port == default else f"{host}:{port}"
    return _Line(
        origin=Origin(scheme == "https", host.strip("[]"), port),
        start=f"{method} {target} HTTP/1.1\r\n",
        host=f"host: {authority}\r\n",
        length_if_empty="content-length: 0\r\n" if method in _BODIED else "",
    )


def _name(name: str) -> _Name:
    if _TOKEN.fullmatch(name) is None:
        raise ValueError("a header's name is not a token")
    if name.lower() in _OWN_FIELDS:
        raise ValueError("a header that frames the body is the client's own to write")
    return _Name(f"{name}: ", _OPTIONAL_FIELDS.get(name.lower(), 0))


def _check(name: str, value: str) -> None:
    """Refuses a value that would add a line, or that cannot be encoded."""
    if _UNFIT_VALUE.search(value) is not None:
        raise ValueError(f"the header {name} holds what HTTP cannot carry")
