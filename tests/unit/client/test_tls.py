"""TLS and mutual TLS against a server with certificates made for the test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from tests.unit.client.scripted import ClientDriver, Context, Served
from trunkline import TlsOptions, UnavailableError, v1

Connect = Callable[..., ClientDriver]


def server_credentials(
    authority: trustme.CA, name: str, *, mutual: bool = False
) -> grpc.ServerCredentials:
    certificate = authority.issue_cert(name)
    key = certificate.private_key_pem.bytes()
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    roots = authority.cert_pem.bytes() if mutual else None
    return grpc.ssl_server_credentials([(key, chain)], roots, mutual)


async def route(request: Any, context: Context) -> v1.RouteResponse:
    names = context.auth_context().get("x509_subject_alternative_name", ())
    return v1.RouteResponse(decision=v1.Decision(route=b",".join(names).decode()))


async def test_tls_with_the_authority_that_signed(connect: Connect) -> None:
    authority = trustme.CA()
    async with Served(server_credentials(authority, "127.0.0.1")) as served:
        served.router.on_route = route
        tls = TlsOptions(root_certificates=authority.cert_pem.bytes())
        await connect(served.target, tls=tls, api_key="tl-secret").route()
        assert served.router.calls[0].metadata["authorization"] == "Bearer tl-secret"


async def test_another_authority_is_refused(connect: Connect) -> None:
    async with Served(server_credentials(trustme.CA(), "127.0.0.1")) as served:
        tls = TlsOptions(root_certificates=trustme.CA().cert_pem.bytes())
        with pytest.raises(UnavailableError):
            await connect(served.target, tls=tls).generate("x")
        assert served.router.calls == []


async def test_the_servers_name_must_fit_unless_told(connect: Connect) -> None:
    authority = trustme.CA()
    roots = authority.cert_pem.bytes()
    async with Served(server_credentials(authority, "router.internal")) as served:
        served.router.on_route = route
        with pytest.raises(UnavailableError):
            await connect(served.target, tls=TlsOptions(root_certificates=roots)).generate("x")
        named = TlsOptions(root_certificates=roots, server_name="router.internal")
        await connect(served.target, tls=named).route()


async def test_mutual_tls_from_files(connect: Connect, tmp_path: Path) -> None:
    authority = trustme.CA()
    ours = authority.issue_cert("team-a.internal")
    ca_file, cert_file, key_file = (tmp_path / name for name in ("ca", "cert", "key"))
    authority.cert_pem.write_to_path(ca_file)
    ours.private_key_pem.write_to_path(key_file)
    for blob in ours.cert_chain_pems:
        blob.write_to_path(cert_file, append=True)
    credentials = server_credentials(authority, "127.0.0.1", mutual=True)
    async with Served(credentials) as served:
        served.router.on_route = route
        with_certificate = TlsOptions.from_files(ca_file, cert_file=cert_file, key_file=key_file)
        response = await connect(served.target, tls=with_certificate).route()
        assert response.decision.route == "team-a.internal"

        with pytest.raises(UnavailableError):
            await connect(served.target, tls=TlsOptions.from_files(ca_file)).generate("x")


def test_half_a_client_certificate_is_refused() -> None:
    with pytest.raises(ValueError, match="both"):
        TlsOptions(private_key=b"key")


def test_the_private_key_is_not_shown() -> None:
    shown = repr(TlsOptions(private_key=b"PRIVATE", certificate_chain=b"chain"))
    assert "PRIVATE" not in shown
