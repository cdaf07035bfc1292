"""Where Redis is: one URL for a single server, a Sentinel service or a Cluster."""

import ssl
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit


class Topology(Enum):
    """How the servers behind a URL stand to each other."""

    SINGLE = "redis"
    SENTINEL = "redis+sentinel"
    CLUSTER = "redis+cluster"


_DEFAULT_PORTS = {Topology.SINGLE: 6379, Topology.SENTINEL: 26379, Topology.CLUSTER: 6379}
_OPTIONS = frozenset({"ca_file", "cert_file", "key_file"})


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A parsed URL. Its repr and `display` hold no password.

    `hosts` are (host, port) of the server, the sentinels or some nodes of the cluster.
    `service` is the Sentinel's name for the primary. `tls` is None for plain TCP.
    """

    topology: Topology
    hosts: tuple[tuple[str, int], ...]
    service: str = ""
    database: int = 0
    username: str = ""
    password: str = field(default="", repr=False)
    tls: "TlsFiles | None" = None

    @property
    def display(self) -> str:
        """The address for logs and messages."""
        hosts = ",".join(_host_text(host, port) for host, port in self.hosts)
        path = f"/{self.service}" if self.service else ""
        scheme = self.topology.value
        return f"{scheme if self.tls is None else 'rediss' + scheme[5:]}://{hosts}{path}"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a TLS connection; empty means the system's roots, and no client certificate."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    def context(self) -> ssl.SSLContext:
        """A context that checks the server's certificate and name.

        Raises OSError or ssl.SSLError if a file cannot be read.
        """
        context = ssl.create_default_context(cafile=self.ca_file or None)
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file or None)
        return context


def parse_redis_url(url: str) -> RedisAddress:
    """Reads a URL of one of these shapes; `rediss` in place of `redis` means TLS.

        redis://[[user]:password@]host[:port][/database]
        redis+sentinel://[[user]:password@]host[:port],.../service[/database]
        redis+cluster://[[user]:password@]host[:port],...

    User and password are the servers'; sentinels are asked without. With TLS, the query may
    name `ca_file`, `cert_file` and `key_file`. Raises ValueError with a message that quotes
    nothing of the URL's user information.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("the Redis URL cannot be parsed") from None
    secure = parts.scheme.startswith("rediss")
    scheme = "redis" + parts.scheme.removeprefix("rediss") if secure else parts.scheme
    try:
        topology = Topology(scheme)
    except ValueError:
        known = ", ".join(f"{one.value}://" for one in Topology)
        raise ValueError(f"a Redis URL begins with one of {known} (or rediss for TLS)") from None
    user_info, _, servers = parts.netloc.rpartition("@")
    username, _, password = user_info.partition(":")
    service, database = _path(topology, parts)
    return RedisAddress(
        topology,
        _hosts(servers, _DEFAULT_PORTS[topology], many=topology is not Topology.SINGLE),
        service=service,
        database=database,
        username=unquote(username),
        password=unquote(password),
        tls=_tls(parts.query, secure=secure),
    )


def _path(topology: Topology, parts: SplitResult) -> tuple[str, int]:
    words = [unquote(word) for word in parts.path.split("/") if word]
    service = ""
    if topology is Topology.SENTINEL:
        if not words:
            raise ValueError("a redis+sentinel URL ends with /service, the primary's name")
        service = words.pop(0)
    if not words:
        return service, 0
    if topology is Topology.CLUSTER or len(words) > 1 or not words[0].isdecimal():
        raise ValueError("the path of the Redis URL is not a database number")
    return service, int(words[0])


def _hosts(servers: str, default_port: int, *, many: bool) -> tuple[tuple[str, int], ...]:
    texts = servers.split(",") if many else [servers]
    return tuple(_host(text, default_port) for text in texts)


def _host(text: str, default_port: int) -> tuple[str, int]:
    host, port_text = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("an IPv6 host of the Redis URL is not closed by ]")
        port_text = rest[1:]
    elif ":" in text:
        host, _, port_text = text.rpartition(":")
    if not host or any(sign in host for sign in " ,/"):
        raise ValueError("the Redis URL has an empty or malformed host")
    if not port_text:
        return host, default_port
    if not port_text.isdecimal() or not 0 < int(port_text) < 65536:
        raise ValueError("the Redis URL has a port that is not within 1 to 65535")
    return host, int(port_text)


def _tls(query: str, *, secure: bool) -> TlsFiles | None:
    options = parse_qs(query)
    unknown = sorted(options.keys() - _OPTIONS)
    if unknown:
        raise ValueError(f"the Redis URL has an unknown option {unknown[0]!r}")
    if not secure:
        if options:
            raise ValueError("the Redis URL names TLS files without asking for TLS by rediss")
        return None
    return TlsFiles(**{name: values[-1] for name, values in options.items()})


def _host_text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
