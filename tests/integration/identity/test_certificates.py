"""Callers known by the client certificates that gRPC's TLS has verified."""

from collections.abc import AsyncGenerator
from typing import Any

import grpc
import pytest
from cryptography import x509

from tests.support.authority import Authority, Leaf
from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.addresses import address_of_peer
from trunkline_server.governance.identity.certificates import CertificateRule, Certificates
from trunkline_server.governance.identity.identity import Identity
from trunkline_server.governance.identity.keys import Key, KeyRing, digest_of
from trunkline_server.governance.identity.principal import Kind, Principal

SPIFFE = CertificateRule(
    rule="mesh",
    identity="uri",
    pattern="spiffe://acme.example/ns/{project}/sa/{service}",
    fixed={"tenant": "acme"},
    roles=frozenset({"caller"}),
)
HOSTS = CertificateRule(rule="hosts", identity="dns", pattern="{name}.{tenant}.internal.example")
NAMES = CertificateRule(rule="names", identity="subject", pattern="*-{user}")
RULES = Certificates([SPIFFE, HOSTS, NAMES])
_METHOD = "/test.Echo/WhoAmI"


AUTHORITY = Authority()


def uri(value: str) -> Leaf:
    return AUTHORITY.issue(x509.UniformResourceIdentifier(value))


def host(value: str) -> Leaf:
    return AUTHORITY.issue(x509.DNSName(value))


class Server:
    """Tells callers who they are, behind real TLS."""

    def __init__(self) -> None:
        self.identity = Identity(KeyRing([Key("team", digest_of("tk_team"))]), None, RULES)
        self.seen: list[Principal] = []
        self.contexts: list[dict[str, Any]] = []
        self.peers: list[str] = []

    async def who(self, _: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        metadata = dict(context.invocation_metadata() or ())
        self.contexts.append(dict(context.auth_context()))
        self.peers.append(context.peer())
        try:
            caller = self.identity.authenticate(
                str(metadata.get("authorization", "")), context.auth_context, 0.0
            )
        except TrunklineError as error:
            await context.abort(error.code, error.message)
        self.seen.append(caller)
        return caller.name.encode()


@pytest.fixture
async def served() -> AsyncGenerator[tuple[Server, str]]:
    own = host("localhost")
    credentials = grpc.ssl_server_credentials(
        [(own.key, own.certificate)],
        root_certificates=AUTHORITY.certificate,
        require_client_auth=True,
    )
    server = grpc.aio.server()
    service = Server()
    handlers: dict[str, Any] = {"WhoAmI": grpc.unary_unary_rpc_method_handler(service.who)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    yield service, f"127.0.0.1:{port}"
    await server.stop(None)


async def call(address: str, leaf: Leaf, metadata: tuple[tuple[str, str], ...] = ()) -> bytes:
    credentials = grpc.ssl_channel_credentials(AUTHORITY.certificate, leaf.key, leaf.certificate)
    options = (("grpc.ssl_target_name_override", "localhost"),)
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        ask: Any = channel.unary_unary(_METHOD)
        answer: bytes = await ask(b"", metadata=metadata, timeout=10)
        return answer


async def test_a_spiffe_identity_is_a_principal(served: tuple[Server, str]) -> None:
    server, address = served
    name = "spiffe://acme.example/ns/chat/sa/billing"
    assert await call(address, uri(name)) == name.encode()
    (caller,) = server.seen
    assert caller == Principal(
        kind=Kind.CERTIFICATE,
        name=name,
        source="certificates[mesh]",
        tenant="acme",
        project="chat",
        service="billing",
        roles=frozenset({"caller"}),
    )
    found = address_of_peer(server.peers[0])
    assert found is not None
    assert found.is_loopback


async def test_host_names_and_subjects_are_principals(served: tuple[Server, str]) -> None:
    server, address = served
    await call(address, host("worker.acme.internal.example"))
    elsewhere = x509.DNSName("elsewhere.example")
    await call(address, AUTHORITY.issue(elsewhere, subject="laptop-ada"))
    worker, person = server.seen
    assert (worker.name, worker.tenant) == ("worker", "acme")
    assert worker.source == "certificates[hosts]"
    assert (person.name, person.user) == ("laptop-ada", "ada")


@pytest.mark.parametrize(
    "name",
    [
        "spiffe://evil.example/ns/chat/sa/billing",
        "spiffe://acme.example/ns/chat/sa/billing/more",
        "spiffe://acme.example/ns//sa/billing",
        "spiffe://acme.example/ns/a/b/sa/billing",
        "worker.acme.internal.example.evil.example",
        "a.b.acme.internal.example",
    ],
)
async def test_names_that_fit_no_pattern_are_nobody(served: tuple[Server, str], name: str) -> None:
    server, address = served
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(address, uri(name) if "://" in name else host(name))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert server.seen == []


async def test_a_token_goes_before_the_connections_certificate(
    served: tuple[Server, str],
) -> None:
    server, address = served
    mesh = uri("spiffe://acme.example/ns/chat/sa/proxy")
    await call(address, mesh, (("authorization", "Bearer tk_team"),))
    assert server.seen[0].kind is Kind.KEY
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(address, mesh, (("authorization", "Bearer tk_wrong"),))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_certificate_is_read_once() -> None:
    pem = host("worker.acme.internal.example").certificate
    rules = Certificates([HOSTS])
    context = {"x509_pem_cert": [pem]}
    assert rules.authenticate(context) is rules.authenticate(context)
    assert rules.authenticate({}) is None
    assert rules.authenticate({"x509_pem_cert": []}) is None
    with pytest.raises(TrunklineError) as caught:
        rules.authenticate({"x509_pem_cert": [b"nonsense"]})
    assert caught.value.reason == v1.ERROR_REASON_AUTHENTICATION


def test_a_certificate_without_alternative_names_has_its_subject() -> None:
    pem = AUTHORITY.issue(subject="laptop-ada").certificate
    caller = Certificates([SPIFFE, HOSTS, NAMES]).authenticate({"x509_pem_cert": [pem]})
    assert caller is not None
    assert caller.user == "ada"


@pytest.mark.parametrize(
    ("pattern", "fixed"),
    [("{nobody}", {}), ("{name}", {"rank": "x"}), ("{name}/{name}", {}), ("{name}", {"name": "x"})],
)
def test_rules_that_cannot_be_meant(pattern: str, fixed: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"none of|given twice"):
        CertificateRule(rule="r", identity="uri", pattern=pattern, fixed=fixed)
