"""Callers of a running router by tokens of an issuer and by client certificates."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from google.rpc import error_details_pb2

from tests.support.authority import Authority, Leaf
from tests.support.callers import NOWHERE, bearer, denial, key, refusal, shows, told
from tests.support.fault_server import FaultServer, hang, read_request
from tests.support.oidc import OidcServer, SigningKey, claims_of
from tests.support.router import PATIENCE, Router, ask, detail, openai_at, reason, router
from trunkline import v1
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub
from trunkline_server.catalogue.known import known
from trunkline_server.clock import SystemClock
from trunkline_server.settings import parse

CLOCK = SystemClock()
FIRST, SECOND, FOREIGN = (SigningKey.new(name) for name in ("first", "second", "foreign"))
REQUEST = v1.RouteRequest(model="large")


def config(issuer: str, *more: str) -> str:
    return "\n".join(
        [
            openai_at(NOWHERE),
            "tenants: {acme: {}, umbrella: {suspended: true}}",
            "access: {known_tenants_only: true}",
            "issuers:",
            "  corp:",
            f"    issuer: '{issuer}'",
            "    audiences: [trunkline]",
            "    claims: {name: sub, tenant: org, roles: groups}",
            "    role_of: {staff: [caller], crew: [viewer]}",
            *more,
            f"keys:\n{key('team')}",
        ]
    )


def token(issuer: str, signer: SigningKey = FIRST, **changes: object) -> str:
    now = CLOCK.wall()
    claims = {"iat": now, "exp": now + 600, "org": "acme", "groups": ["staff"], **changes}
    return signer.sign(claims_of(issuer, **claims))


async def route(trunkline: Router, shown: str) -> v1.RouteResponse:
    return await trunkline.stub.Route(REQUEST, metadata=bearer(shown), timeout=PATIENCE)


@pytest.fixture
async def issuer() -> AsyncGenerator[OidcServer]:
    server = OidcServer(FIRST)
    await server.start()
    yield server
    await server.stop()


async def test_tokens_keys_and_what_tokens_lack(issuer: OidcServer) -> None:
    url, now = issuer.url, CLOCK.wall()
    async with router(config(url)) as trunkline:
        assert (await route(trunkline, token(url))).decision.deployment == "d0"
        assert (await route(trunkline, "tk_team")).decision.deployment == "d0"
        wrong = {
            "no key or token": None,
            "unknown key": "tk_unknown",
            "another audience": token(url, aud="another"),
            "expired": token(url, exp=now - 120),
            "not yet valid": token(url, nbf=now + 120),
            "of nobody": token("http://127.0.0.1:1"),
            "of a foreign key": token(url, FOREIGN),
            "forged": replace(FOREIGN, kid="first").sign(claims_of(url, iat=now, exp=now + 600)),
            "without a name": token(url, sub=None),
        }
        codes = {
            name: await trunkline.stub.Route(
                REQUEST, metadata=bearer(shown) if shown else None, timeout=PATIENCE
            ).code()
            for name, shown in wrong.items()
        }
        # Clocks differ: a minute after its end a token is still good.
        await route(trunkline, token(url, exp=now - 30))
        rules = [
            await denial(_route(trunkline, token(url, org=org, groups=groups)))
            for org, groups in (
                ("acme", ["staff"]),
                ("acme", ["crew"]),
                ("acme", ["strangers"]),
                ("umbrella", ["staff"]),
                ("unheard-of", ["staff"]),
            )
        ]
        # Metrics tell issuers apart, not their callers, of whom there may be many.
        await trunkline.stub.Generate(ask(), metadata=bearer(token(url)), timeout=PATIENCE).code()
        counted = trunkline.metric(
            "trunkline_calls_total",
            operation="generate",
            caller="issuers[corp]",
            reason="service_unavailable",
        )
    assert counted == 1
    assert codes == dict.fromkeys(wrong, grpc.StatusCode.UNAUTHENTICATED)
    assert rules == [
        "",
        "roles[viewer].permissions",
        # Groups that stand for nothing leave the roles of whoever was given none.
        "",
        "tenants[umbrella].suspended",
        "tenants[unheard-of]",
    ]


async def _route(trunkline: Router, shown: str) -> v1.RouteResponse:
    return await route(trunkline, shown)


async def test_keys_rotate_under_load_and_no_good_token_is_refused(issuer: OidcServer) -> None:
    signers = [FIRST, SECOND]
    async with router(config(issuer.url, "    forced_pause: 1ms")) as trunkline:
        for turn in range(6):
            signers.append(SigningKey.new(f"turn-{turn}"))
            issuer.keys = signers[-2:]
            await asyncio.gather(
                *(
                    route(trunkline, token(issuer.url, signer, jti=str(number)))
                    for number in range(10)
                    for signer in signers[-2:]
                )
            )
        fetches = trunkline.metric("trunkline_issuer_fetches_total", issuer="corp", result="ok")
    assert fetches <= 1 + 6 * 2


async def test_an_outage_of_the_issuer_is_unavailable_and_passes(issuer: OidcServer) -> None:
    await issuer.stop()
    async with router(config(issuer.url)) as trunkline:
        error = await refusal(_route(trunkline, token(issuer.url)))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert reason(error) == v1.ERROR_REASON_SERVICE_UNAVAILABLE
        assert told(error)["issuer"] == "corp"
        assert detail(error, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() > 0
        # Keys are told without it.
        await route(trunkline, "tk_team")
        await issuer.start()
        # The router asks by itself; whoever calls meanwhile waits for the answer.
        await asyncio.wait_for(issuer.asked.wait(), PATIENCE)
        await route(trunkline, token(issuer.url))
        await issuer.stop()
        # The keys at hand serve on; whether another one is the issuer's cannot be told.
        await route(trunkline, token(issuer.url, jti="another"))
        error = await refusal(_route(trunkline, token(issuer.url, SECOND)))
        assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_an_issuer_that_hangs_keeps_a_call_no_longer_than_its_deadline() -> None:
    """And lets others pass meanwhile."""
    async with (
        FaultServer([read_request, hang]) as silent,
        router(config(silent.url, "    fetch_timeout: 60s")) as trunkline,
    ):
        call = trunkline.stub.Route(REQUEST, metadata=bearer(token(silent.url)), timeout=0.3)
        await route(trunkline, "tk_team")
        assert await call.code() in {
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.UNAVAILABLE,
        }
        assert len(silent.requests) == 1


async def test_an_issuer_that_a_reload_removes_vouches_for_nobody(issuer: OidcServer) -> None:
    async with router(config(issuer.url)) as trunkline:
        await route(trunkline, token(issuer.url))
        before = issuer.fetches["/keys"]
        env = {"TEST_KEY": "sk-test"}
        # Another rule of the same issuer: its keys are not fetched anew.
        trunkline.worker.reload(parse(config(issuer.url, "    skew: 5s"), "t", env, known()))
        await route(trunkline, token(issuer.url))
        assert issuer.fetches["/keys"] == before
        alone = f"{openai_at(NOWHERE)}\nkeys:\n{key('team')}\n"
        trunkline.worker.reload(parse(alone, "t", env, known()))
        error = await refusal(_route(trunkline, token(issuer.url)))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        await route(trunkline, "tk_team")


async def test_a_token_in_a_keys_name_draws_on_nothing_of_the_keys(issuer: OidcServer) -> None:
    limit = "limits: {one: {measure: requests, scope: key, amount: 1, per: day}}"
    async with router(config(issuer.url, limit)) as trunkline:
        codes = [
            await trunkline.stub.Generate(ask(), metadata=shown, timeout=PATIENCE).code()
            for shown in [bearer(token(issuer.url, sub="team"))] * 2 + [shows("team")] * 2
        ]
    # Nobody is there to answer what is let through.
    through, held = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED
    assert codes == [through, held, through, held]


AUTHORITY = Authority()
RULES = """
tenants: {acme: {}, umbrella: {suspended: true}}
certificates:
  - {name: mesh, identity: uri, pattern: "spiffe://{tenant}.example/sa/{service}"}
  - {name: hosts, identity: dns, pattern: "{name}.internal.example", models: [small]}
"""


def leaf(name: str) -> Leaf:
    if "://" in name:
        return AUTHORITY.issue(x509.UniformResourceIdentifier(name))
    return AUTHORITY.issue(x509.DNSName(name))


@asynccontextmanager
async def secured(folder: Path, rules: str) -> AsyncGenerator[Router]:
    """A router behind TLS that asks for client certificates."""
    own = leaf("localhost")
    for name, content in (
        ("cert.pem", own.certificate),
        ("key.pem", own.key),
        ("ca.pem", AUTHORITY.certificate),
    ):
        (folder / name).write_bytes(content)
    tls = ", ".join(
        f"{name}: '{folder / file}'"
        for name, file in (("cert", "cert.pem"), ("key", "key.pem"), ("client_ca", "ca.pem"))
    )
    tls = f"{{{tls}, require_client_cert: true}}"
    async with router(openai_at(NOWHERE) + rules, tls=tls) as trunkline:
        yield trunkline


async def outcome(
    trunkline: Router, shown: Leaf | None, *metadata: tuple[str, str]
) -> tuple[grpc.StatusCode, str]:
    """The code that a dry run ends with, and the rule that denied it."""
    credentials = grpc.ssl_channel_credentials(
        AUTHORITY.certificate,
        shown.key if shown else None,
        shown.certificate if shown else None,
    )
    options = (
        ("grpc.ssl_target_name_override", "localhost"),
        ("grpc.use_local_subchannel_pool", 1),
    )
    async with grpc.aio.secure_channel(trunkline.address, credentials, options) as channel:
        call = InferenceServiceStub(channel).Route(REQUEST, metadata=metadata, timeout=PATIENCE)
        code = await call.code()
        if code is grpc.StatusCode.PERMISSION_DENIED:
            return code, told(await refusal(call))["rule"]
        return code, ""


async def test_certificates_stand_for_callers(tmp_path: Path) -> None:
    rules = f"{RULES}keys:\n{key('team')}\n"
    async with secured(tmp_path, rules) as trunkline:
        found = [
            await outcome(trunkline, leaf("spiffe://acme.example/sa/billing")),
            await outcome(trunkline, leaf("spiffe://umbrella.example/sa/billing")),
            await outcome(trunkline, leaf("worker.internal.example")),
            await outcome(trunkline, leaf("worker.elsewhere.example")),
            # The token is nearer to the caller than the connection, for good or bad.
            await outcome(trunkline, leaf("spiffe://umbrella.example/sa/proxy"), *shows("team")),
            await outcome(trunkline, leaf("spiffe://acme.example/sa/proxy"), *shows("nobody")),
        ]
    ok, denied, unknown = (
        grpc.StatusCode.OK,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    )
    assert found == [
        (ok, ""),
        (denied, "tenants[umbrella].suspended"),
        (denied, "certificates[hosts].models"),
        (unknown, ""),
        (ok, ""),
        (unknown, ""),
    ]


async def test_whose_certificate_names_nobody_shows_a_key(tmp_path: Path) -> None:
    rules = f"{RULES}keys:\n{key('team')}\n"
    stranger = leaf("worker.elsewhere.example")
    async with secured(tmp_path, rules) as trunkline:
        assert await outcome(trunkline, stranger) == (grpc.StatusCode.UNAUTHENTICATED, "")
        assert await outcome(trunkline, stranger, *shows("team")) == (grpc.StatusCode.OK, "")
        # Without a certificate there is no connection.
        assert await outcome(trunkline, None, *shows("team")) == (grpc.StatusCode.UNAVAILABLE, "")
