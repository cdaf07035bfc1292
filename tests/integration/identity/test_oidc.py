"""Tokens of an issuer that is really there, by HTTP, and really goes away."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import aiohttp
import pytest

from tests.support.oidc import OidcServer, SigningKey, claims_of
from trunkline import v1
from trunkline_server.clock import SystemClock
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.identity.identity import Identity
from trunkline_server.governance.identity.issuers import IssuerEndpoint, IssuerKeys
from trunkline_server.governance.identity.keys import Key, KeyRing, new_key
from trunkline_server.governance.identity.principal import Kind, Principal
from trunkline_server.governance.identity.tokens import Issuer, TokenPolicy, Tokens

RSA = SigningKey.new("rsa-1", "RS256")
EC = SigningKey.new("ec-1", "ES256")
ED = SigningKey.new("ed-1", "EdDSA")
API_KEY = new_key()
# Between fetches for keys that are not known, in seconds.
PAUSE = 10.0


class Clock:
    """The system's, and what a test adds to it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return SystemClock().monotonic() + self.ahead

    def wall(self) -> float:
        return SystemClock().wall() + self.ahead


class Watch:
    def __init__(self) -> None:
        self.problems: list[str] = []
        self.fetched = asyncio.Event()

    def issuer_fetched(self, issuer: str, keys: int) -> None:
        self.fetched.set()

    def issuer_failed(self, issuer: str, problem: str, age: float | None) -> None:
        self.problems.append(problem)


class Rig:
    """A router's identity beside its issuer."""

    def __init__(self, server: OidcServer, web: aiohttp.ClientSession) -> None:
        self.server = server
        self.web = web
        self.watch = Watch()
        self.clock = Clock()
        endpoint = IssuerEndpoint(name="corp", issuer=server.url, forced_pause=PAUSE)
        self.keys = IssuerKeys(endpoint, self.fetch, self.clock, self.watch)
        policy = TokenPolicy(audiences=frozenset({"trunkline"}))
        self.identity = Identity(
            KeyRing([Key("team", API_KEY.digest)]), Tokens([Issuer(self.keys, policy)])
        )

    async def fetch(self, url: str) -> bytes:
        try:
            async with self.web.get(url) as response:
                response.raise_for_status()
                return await response.read()
        except aiohttp.ClientError as error:
            raise TrunklineError(
                v1.ERROR_REASON_SERVICE_UNAVAILABLE, type(error).__name__
            ) from error

    def token(self, key: SigningKey) -> str:
        now = self.clock.wall()
        return key.sign(claims_of(self.server.url, iat=now, exp=now + 600))

    async def caller(self, token: str) -> Principal:
        return await self.identity.authenticate_in_time(f"Bearer {token}", dict, self.clock.wall)


@pytest.fixture
async def rig() -> AsyncGenerator[Rig]:
    server = OidcServer(RSA, EC)
    await server.start()
    async with aiohttp.ClientSession() as web:
        rig = Rig(server, web)
        yield rig
        await rig.keys.close()
    await server.stop()


@pytest.mark.parametrize("key", [RSA, EC], ids=["RS256", "ES256"])
async def test_a_token_is_verified_by_keys_that_were_discovered(rig: Rig, key: SigningKey) -> None:
    caller = await rig.caller(rig.token(key))
    assert (caller.kind, caller.name) == (Kind.TOKEN, "ada")
    assert rig.server.fetches == {"/.well-known/openid-configuration": 1, "/keys": 1}


async def test_keys_and_tokens_are_told_apart(rig: Rig) -> None:
    caller = await rig.caller(API_KEY.text)
    assert (caller.kind, caller.name) == (Kind.KEY, "team")
    with pytest.raises(TrunklineError, match="the key is not known"):
        await rig.caller(new_key().text)
    assert rig.server.fetches == {}


async def test_keys_rotate_while_callers_call(rig: Rig) -> None:
    """Every token is good at the moment it is shown, and none is refused."""
    keys = [RSA, EC]
    for turn in range(10):
        keys.append(SigningKey.new(f"turn-{turn}", "ES256"))
        rig.server.keys = keys[-2:]
        tokens = [rig.token(key) for key in keys[-2:] for _ in range(5)]
        # The pause between fetches for unknown keys is over.
        rig.clock.ahead += PAUSE
        callers = await asyncio.gather(*map(rig.caller, tokens))
        assert {caller.name for caller in callers} == {"ada"}
    rig.clock.ahead += PAUSE
    with pytest.raises(TrunklineError) as caught:
        await rig.caller(rig.token(RSA))
    assert caught.value.reason == v1.ERROR_REASON_AUTHENTICATION


async def test_an_outage_is_no_refusal_and_ends(rig: Rig) -> None:
    await rig.server.stop()
    token = rig.token(RSA)
    with pytest.raises(TrunklineError) as caught:
        await rig.caller(token)
    assert caught.value.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert rig.watch.problems
    await rig.server.start()
    keeper = asyncio.create_task(rig.keys.run())
    await rig.watch.fetched.wait()
    await rig.caller(token)
    await rig.server.stop()
    # Known keys serve on; whether a new one is the issuer's cannot be told.
    await rig.caller(rig.token(EC))
    with pytest.raises(TrunklineError) as caught:
        await rig.caller(rig.token(ED))
    assert caught.value.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    keeper.cancel()
    with suppress(asyncio.CancelledError):
        await keeper
