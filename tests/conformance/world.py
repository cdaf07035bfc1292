"""What stands around a client under test: routers as processes, their upstream, relays, keys."""

import asyncio
import ipaddress
import signal
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography import x509

from tests.conformance.relay import Relay
from tests.conformance.upstream import Upstream
from tests.support.authority import Authority, Leaf
from tests.support.callers import key
from tests.support.ports import free_port
from tests.support.process import RouterProcess, router_process

# A name that only the drivers' own hosts file has, for two addresses of this machine.
NAME = "trunkline.test"
ADDRESSES = ("127.0.0.1", "127.0.0.2")
SERVER_NAME = "router.trunkline.test"

_ENVIRONMENT = {"VENDOR_KEY": "sk-of-a-vendor", "WRONG_VENDOR_KEY": "invalid"}

# `sim` takes any model name with a script of the simulator; the deployments are for what depends
# on configuration. Nothing is retried and nothing cools down, so that cases do not meet.
_CONFIG = """\
server: {{drain_timeout: 20s, max_concurrent_calls: {max_calls}{server}}}
providers:
  sim: {{kind: openai, base_url: "{upstream}/openai/v1", api_key: "env:VENDOR_KEY"}}
  refused: {{kind: openai, base_url: "{upstream}/openai/v1", api_key: "env:WRONG_VENDOR_KEY"}}
deployments:
  - name: large
    provider: sim
    model: sim-large
    capabilities: [chat, streaming, tools, parallel_tools]
    context_tokens: 2000
    residency: [eu]
    price: {{input: "2", output: "8"}}
  - {{name: down, provider: sim, model: sim-error-503, capabilities: [chat]}}
  - {{name: embed, provider: sim, model: sim-embed, capabilities: [embedding]}}
  - {{name: hang, provider: sim, model: sim-hang, capabilities: [chat, streaming]}}
models:
  large: {{deployments: [large]}}
  embed: {{deployments: [embed]}}
  down: {{deployments: [down]}}
  hang: {{deployments: [hang], attempts: {{attempt_timeout: 200ms}}}}
routing:
  attempts: {{retries: 0}}
  breaker:
    {{consecutive_failures: 10000, error_rate: 1, min_calls: 10000,
      default_cooldown: 1ms, max_cooldown: 1ms}}
cache: {{use: asked}}
keys:
{keys}
limits:
  once: {{measure: requests, scope: key, amount: 1, per: day, burst: 1, match: {{key: [once]}}}}
budgets:
  small: {{scope: key, amount: "0.000001", period: monthly, match: {{key: [poor]}}}}
"""

_KEYS = (("conformance", ""), ("narrow", "models: [embed]"), ("once", ""), ("poor", ""))

_CERTIFICATES = """\
certificates:
  - {name: mesh, identity: uri, pattern: "spiffe://trunkline.test/sa/{service}"}
"""


class World:
    """The upstream, the main router and the relay before it live as long as this, and so do the
    other routers that cases only call; what a case stops or drains ends with `fresh`."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._case = AsyncExitStack()
        self.upstream = Upstream()
        self.routers: dict[str, RouterProcess] = {}
        self.relays: dict[str, Relay] = {}
        self.words: dict[str, str] = {"name": NAME, "server_name": SERVER_NAME}

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        self.directory = Path(folder)
        self._certify()
        self.hosts = self.directory / "hosts"
        lines = [f"{address} {NAME}\n" for address in ADDRESSES]
        self.hosts.write_text("127.0.0.1 localhost\n" + "".join(lines), "utf-8")
        await self._stack.enter_async_context(self.upstream)
        await self._start("main", self._stack, free_port())
        await self._relay("relay", self._stack, "127.0.0.1:0")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.fresh()
        await self._stack.__aexit__(kind, error, trace)

    async def fresh(self) -> None:
        """Ends what the last case started and forgets what was seen."""
        await self._case.aclose()
        self._case = AsyncExitStack()
        self.relays = {"relay": self.relays["relay"]} if self.relays else {}
        for relay in self.relays.values():
            relay.seen.clear()
            relay.faults.clear()
        self.upstream.headers.clear()
        self.upstream.gone = 0

    async def start(self, what: str) -> None:
        """Starts, if it does not run, one of: `own`, a router that the case may stop; `pair`, one
        on each address of the name; `relays`, the same of relays; `tight`, a router that takes
        one call at a time; `tls`, one that speaks TLS; `mtls`, one that lets nobody in without a
        certificate, and knows callers by it."""
        port = free_port()
        match what:
            case "own":
                await self._start("own", self._case, port)
            case "tight" | "tls" | "mtls" if what in self.routers:
                pass
            case "tight":
                await self._start("tight", self._stack, port, max_calls=1)
            case "tls" | "mtls":
                await self._start(what, self._stack, port, tls=what)
            case "pair":
                for number, address in enumerate(ADDRESSES, 1):
                    await self._start(f"pair{number}", self._case, port, address)
                self.words["pair"] = f"dns:///{NAME}:{port}"
            case "relays":
                for number, address in enumerate(ADDRESSES, 1):
                    await self._relay(f"relay{number}", self._case, f"{address}:{port}")
                self.words["relays"] = f"dns:///{NAME}:{port}"
            case _:
                raise ValueError(f"nothing is called {what!r}")

    async def stop(self, name: str, *, by: signal.Signals) -> None:
        """Signals a router; a killed one has ended when this returns."""
        router = self.routers[name]
        router.send(by)
        if by is signal.SIGKILL:
            await asyncio.wait_for(router.process.wait(), 20)

    async def restart(self, name: str) -> None:
        """Starts a router anew on the port of the one that was killed."""
        host, _, port = self.routers[name].address.rpartition(":")
        await self._start(name, self._case, int(port), host)

    async def _start(
        self,
        name: str,
        stack: AsyncExitStack,
        port: int,
        host: str = "127.0.0.1",
        *,
        max_calls: int = 1000,
        tls: str = "",
    ) -> None:
        server = ""
        if tls:
            server = ", tls: {{cert: {cert}, key: {key}}}".format(**self.words)
        if tls == "mtls":
            demand = ", client_ca: {ca}, require_client_cert: true".format(**self.words)
            server = server.replace("}", demand + "}")
        keys = "\n".join(key(*row) for row in _KEYS)
        config = _CONFIG.format(
            upstream=self.upstream.url, max_calls=max_calls, server=server, keys=keys
        )
        path = self.directory / f"{name}.yaml"
        path.write_text(config + (_CERTIFICATES if tls == "mtls" else ""), "utf-8")
        started = router_process("--config", str(path), env=_ENVIRONMENT, listen=f"{host}:{port}")
        self.routers[name] = await stack.enter_async_context(started)
        self.words[name] = self.routers[name].address

    async def _relay(self, name: str, stack: AsyncExitStack, address: str) -> None:
        relay = Relay(self.routers["main"].address, address)
        self.relays[name] = await stack.enter_async_context(relay)
        self.words[name] = relay.address

    def _certify(self) -> None:
        """Writes the certificates of a router, of a client, and of an authority nobody knows."""
        authority, stranger = Authority(), Authority()
        loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        leaf = authority.issue(loopback, x509.DNSName("localhost"), x509.DNSName(SERVER_NAME))
        caller = authority.issue(x509.UniformResourceIdentifier("spiffe://trunkline.test/sa/web"))
        self._write_leaf(leaf, "cert", "key")
        self._write_leaf(caller, "client_cert", "client_key")
        self._write("ca", authority.certificate)
        self._write("strange_ca", stranger.certificate)

    def _write_leaf(self, leaf: Leaf, certificate: str, key: str) -> None:
        self._write(certificate, leaf.certificate)
        self._write(key, leaf.key)

    def _write(self, name: str, content: bytes) -> None:
        path = self.directory / f"{name}.pem"
        path.write_bytes(content)
        self.words[name] = str(path)


def filled(value: Any, words: dict[str, str]) -> Any:
    """The value with `${WORD}` replaced in all its texts."""
    if isinstance(value, str):
        for word, text in words.items():
            value = value.replace("${" + word + "}", text)
        return value
    if isinstance(value, dict):
        return {key: filled(each, words) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, words) for each in value]
    return value
