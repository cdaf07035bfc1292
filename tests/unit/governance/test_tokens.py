"""Tokens of an issuer: which are good, which are not, and what an outage changes."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.oidc import SigningKey, claims_of, jwks
from tests.support.virtual_time import EPOCH, VirtualClock, run
from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.identity.claims import ClaimMap
from trunkline_server.governance.identity.issuers import IssuerEndpoint, IssuerKeys
from trunkline_server.governance.identity.pending import KeysPendingError
from trunkline_server.governance.identity.principal import Kind, Principal
from trunkline_server.governance.identity.tokens import Issuer, TokenPolicy, Tokens

ISSUER = "https://id.example"
KEYS_URI = "https://id.example/keys"
EC = SigningKey.new("ec-1")
EC_NEXT = SigningKey.new("ec-2")
ED = SigningKey.new("ed-1", "EdDSA")
RSA = SigningKey.new("rsa-1", "RS256")
PSS = SigningKey("pss-1", "PS256", RSA.private)
P384 = SigningKey.new("ec-384", "ES384")
POLICY = TokenPolicy(
    audiences=frozenset({"trunkline"}),
    algorithms=frozenset({"RS256", "PS256", "ES256", "ES384", "EdDSA"}),
    skew=30.0,
)


class Web:
    """Documents by address, counted; those that are not there time out at once."""

    def __init__(self, *keys: SigningKey) -> None:
        discovery = {"issuer": ISSUER, "jwks_uri": KEYS_URI}
        self.documents: dict[str, bytes] = {
            f"{ISSUER}/.well-known/openid-configuration": json.dumps(discovery).encode()
        }
        self.fetches = 0
        self.delay = 0.0
        self.publish(*keys)

    def publish(self, *keys: SigningKey) -> None:
        self.documents[KEYS_URI] = jwks(keys)

    def go_away(self) -> None:
        self.documents.pop(KEYS_URI)

    async def fetch(self, url: str) -> bytes:
        if url == KEYS_URI:
            self.fetches += 1
        await asyncio.sleep(self.delay)
        if url not in self.documents:
            raise TrunklineError(v1.ERROR_REASON_SERVICE_UNAVAILABLE, "id.example is away")
        return self.documents[url]


class Watch:
    def __init__(self) -> None:
        self.fetched: list[int] = []
        self.failures: list[tuple[str, float | None]] = []

    def issuer_fetched(self, issuer: str, keys: int) -> None:
        self.fetched.append(keys)

    def issuer_failed(self, issuer: str, problem: str, age: float | None) -> None:
        self.failures.append((problem, age))


class Rig:
    """A verifier on the virtual clock."""

    def __init__(
        self, web: Web, policy: TokenPolicy = POLICY, capacity: int = 100, **times: Any
    ) -> None:
        self.clock = VirtualClock()
        self.web = web
        self.watch = Watch()
        endpoint = IssuerEndpoint(name="corp", issuer=ISSUER, **times)
        self.keys = IssuerKeys(endpoint, web.fetch, self.clock, self.watch)
        self.tokens = Tokens([Issuer(self.keys, policy)], capacity)

    def now(self, token: str) -> Principal:
        """The verdict without waiting."""
        digest = hashlib.sha256(token.encode()).digest()
        return self.tokens.authenticate(token, digest, self.clock.wall())

    async def verdict(self, token: str) -> Principal:
        """The verdict after the fetches that it needs: the first, and one for a new key."""
        for _ in range(2):
            try:
                return self.now(token)
            except KeysPendingError as pending:
                await pending.fetched()
        return self.now(token)

    async def refusal(self, token: str) -> TrunklineError:
        with pytest.raises(TrunklineError) as caught:
            await self.verdict(token)
        return caught.value


def on_virtual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def ran() -> None:
        run(test)

    ran.__name__ = test.__name__
    return ran


@pytest.mark.parametrize("key", [EC, ED, RSA, PSS, P384], ids=lambda key: str(key.algorithm))
def test_a_good_token_is_its_principal(key: SigningKey) -> None:
    async def main() -> None:
        caller = await Rig(Web(key)).verdict(key.sign(claims_of(ISSUER)))
        assert (caller.kind, caller.name, caller.user) == (Kind.TOKEN, "ada", "ada")
        assert caller.source == "issuers[corp]"

    run(main)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"aud": "another"}, "another audience"),
        ({"aud": None}, "another audience"),
        ({"aud": ["another", 7]}, "another audience"),
        ({"exp": None}, "never expires"),
        ({"exp": EPOCH - 31}, "has expired"),
        ({"exp": "tomorrow"}, "exp is no time"),
        ({"exp": True}, "exp is no time"),
        ({"nbf": EPOCH + 31}, "not valid yet"),
        ({"iat": EPOCH + 31}, "not valid yet"),
        ({"iss": "https://evil.example"}, "issuer is not accepted"),
        ({"iss": ISSUER + "/"}, "issuer is not accepted"),
        ({"iss": None}, "issuer is not accepted"),
        ({"sub": None}, "lacks the claim 'sub'"),
    ],
)
def test_claims_that_are_not_good(changes: dict[str, Any], problem: str) -> None:
    async def main() -> None:
        error = await Rig(Web(EC)).refusal(EC.sign(claims_of(ISSUER, **changes)))
        assert error.reason == v1.ERROR_REASON_AUTHENTICATION
        assert problem in error.message

    run(main)


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": EPOCH - 29},
        {"nbf": EPOCH + 29},
        {"iat": EPOCH + 29},
        {"aud": ["other", "trunkline"]},
    ],
)
def test_what_skew_and_lists_allow(changes: dict[str, Any]) -> None:
    async def main() -> None:
        await Rig(Web(EC)).verdict(EC.sign(claims_of(ISSUER, **changes)))

    run(main)


@on_virtual_time
async def test_a_remembered_token_expires_all_the_same() -> None:
    rig = Rig(Web(EC))
    token = EC.sign(claims_of(ISSUER, exp=EPOCH + 100))
    await rig.verdict(token)
    await asyncio.sleep(129.5)
    rig.now(token)
    await asyncio.sleep(0.5)
    assert "expired" in (await rig.refusal(token)).message


def forged(header: dict[str, Any], claims: dict[str, Any], secret: bytes | None) -> str:
    """A token put together by hand, signed by an HMAC or not at all."""
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in (header, claims)
    ]
    signed = b".".join(parts)
    digest = b"" if secret is None else hmac.new(secret, signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(digest).rstrip(b"=")).decode()


def public_pem(key: SigningKey) -> bytes:
    return key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "HS512", "", 7, ["ES256"], None])
def test_algorithms_are_not_the_tokens_choice(algorithm: object) -> None:
    async def main() -> None:
        rig = Rig(Web(RSA, EC))
        for secret in (None, public_pem(RSA), jwks([RSA])):
            header = {"alg": algorithm, "kid": RSA.kid, "typ": "JWT"}
            error = await rig.refusal(forged(header, claims_of(ISSUER), secret))
            assert error.reason == v1.ERROR_REASON_AUTHENTICATION
            assert "algorithm" in error.message

    run(main)


@on_virtual_time
async def test_an_algorithm_that_is_not_pinned_is_refused() -> None:
    policy = TokenPolicy(audiences=frozenset({"trunkline"}), algorithms=frozenset({"ES256"}))
    rig = Rig(Web(EC, RSA), policy)
    await rig.verdict(EC.sign(claims_of(ISSUER)))
    assert "algorithm" in (await rig.refusal(RSA.sign(claims_of(ISSUER)))).message


@on_virtual_time
async def test_a_key_verifies_only_by_its_own_algorithm() -> None:
    """RSA's key serves RS256 and PS256 alike; its record says which one it is for."""
    rig = Rig(Web(RSA))
    crossed = SigningKey(RSA.kid, "PS256", RSA.private)
    error = await rig.refusal(crossed.sign(claims_of(ISSUER)))
    assert error.reason == v1.ERROR_REASON_AUTHENTICATION


@on_virtual_time
async def test_another_keys_signature_under_a_known_id_is_refused() -> None:
    impostor = SigningKey(EC.kid, "ES256", EC_NEXT.private)
    error = await Rig(Web(EC)).refusal(impostor.sign(claims_of(ISSUER)))
    assert "signature is wrong" in error.message


@pytest.mark.parametrize(
    "header",
    [
        {"jku": "https://evil.example/keys", "kid": "evil"},
        {"x5u": "https://evil.example/cert", "kid": "evil"},
        {"jwk": EC_NEXT.jwk(), "kid": EC.kid},
        {"kid": "../../../../dev/null"},
        {"kid": "ec-1' OR '1'='1"},
    ],
)
def test_a_token_does_not_say_where_its_key_is(header: dict[str, Any]) -> None:
    """Nor is anything fetched but the issuer's own documents."""

    async def main() -> None:
        rig = Rig(Web(EC))
        error = await rig.refusal(EC_NEXT.sign(claims_of(ISSUER), **header))
        assert error.reason in {
            v1.ERROR_REASON_AUTHENTICATION,
            v1.ERROR_REASON_SERVICE_UNAVAILABLE,
        }
        assert set(rig.web.documents) == {f"{ISSUER}/.well-known/openid-configuration", KEYS_URI}
        assert "evil" not in error.message

    run(main)


@pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"crit": []}])
def test_critical_headers_are_not_understood(header: dict[str, Any]) -> None:
    async def main() -> None:
        error = await Rig(Web(EC)).refusal(EC.sign(claims_of(ISSUER), **header))
        assert "header" in error.message

    run(main)


@pytest.mark.parametrize("token", ["", "a.b", "a.b.c", "a.b.c.d", "..", "e30.e30.", "W10.e30.x"])
def test_what_is_no_token(token: str) -> None:
    async def main() -> None:
        error = await Rig(Web(EC)).refusal(token)
        assert error.reason == v1.ERROR_REASON_AUTHENTICATION

    run(main)


@on_virtual_time
async def test_a_token_that_is_too_large_is_not_even_parsed() -> None:
    error = await Rig(Web(EC)).refusal(EC.sign(claims_of(ISSUER, pad="x" * 20_000)))
    assert "too large" in error.message


@on_virtual_time
async def test_a_token_without_a_key_id_is_tried_with_every_key() -> None:
    rig = Rig(Web(EC, EC_NEXT))
    await rig.verdict(EC_NEXT.sign(claims_of(ISSUER), kid=None))
    stranger = SigningKey.new("x")
    error = await rig.refusal(stranger.sign(claims_of(ISSUER), kid=None))
    assert error.reason == v1.ERROR_REASON_AUTHENTICATION


@on_virtual_time
async def test_a_new_key_is_fetched_when_a_token_names_it() -> None:
    rig = Rig(Web(EC))
    old, new = EC.sign(claims_of(ISSUER)), EC_NEXT.sign(claims_of(ISSUER))
    await rig.verdict(old)
    rig.web.publish(EC, EC_NEXT)
    await rig.verdict(new)
    assert rig.web.fetches == 2
    rig.now(old)


@on_virtual_time
async def test_a_key_that_was_withdrawn_takes_its_remembered_tokens_along() -> None:
    rig = Rig(Web(EC))
    old, new = EC.sign(claims_of(ISSUER)), EC_NEXT.sign(claims_of(ISSUER))
    await rig.verdict(old)
    rig.web.publish(EC_NEXT)
    await rig.verdict(new)
    await asyncio.sleep(20)
    assert "none of its issuer's" in (await rig.refusal(old)).message


@on_virtual_time
async def test_unknown_key_ids_fetch_once_per_pause() -> None:
    rig = Rig(Web(EC), forced_pause=10.0)
    await rig.verdict(EC.sign(claims_of(ISSUER)))
    for number in range(50):
        stranger = SigningKey(f"made-up-{number}", "ES256", EC_NEXT.private)
        await rig.refusal(stranger.sign(claims_of(ISSUER)))
    assert rig.web.fetches == 2
    await asyncio.sleep(10)
    error = await rig.refusal(SigningKey("late", "ES256", EC_NEXT.private).sign(claims_of(ISSUER)))
    assert rig.web.fetches == 3
    assert error.reason == v1.ERROR_REASON_AUTHENTICATION


@on_virtual_time
async def test_a_key_id_that_could_not_be_looked_for_is_no_refusal() -> None:
    """Somebody's nonsense has used up the fetch; whoever brings a truly new key is told to try
    again, and when."""
    rig = Rig(Web(EC), forced_pause=10.0)
    await rig.verdict(EC.sign(claims_of(ISSUER)))
    nonsense = SigningKey("nonsense", "ES256", EC_NEXT.private).sign(claims_of(ISSUER))
    assert (await rig.refusal(nonsense)).reason == v1.ERROR_REASON_AUTHENTICATION
    rig.web.publish(EC, EC_NEXT)
    new = EC_NEXT.sign(claims_of(ISSUER))
    await asyncio.sleep(4)
    error = await rig.refusal(new)
    assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert error.retry_after == pytest.approx(6.0)
    await asyncio.sleep(6)
    await rig.verdict(new)


@on_virtual_time
async def test_many_waiting_callers_share_one_fetch() -> None:
    rig = Rig(Web(EC))
    rig.web.delay = 0.5
    tokens = [EC.sign(claims_of(ISSUER, sub=f"user-{number}")) for number in range(20)]
    callers = await asyncio.gather(*map(rig.verdict, tokens))
    assert rig.web.fetches == 1
    assert [caller.name for caller in callers] == [f"user-{number}" for number in range(20)]


@on_virtual_time
async def test_a_caller_that_gives_up_does_not_end_the_fetch() -> None:
    rig = Rig(Web(EC))
    rig.web.delay = 0.5
    token = EC.sign(claims_of(ISSUER))
    impatient = asyncio.create_task(rig.verdict(token))
    await asyncio.sleep(0.1)
    impatient.cancel()
    await asyncio.wait([impatient])
    assert impatient.cancelled()
    await asyncio.sleep(1.0)
    rig.now(token)


@on_virtual_time
async def test_an_issuer_that_was_never_there_is_an_outage() -> None:
    rig = Rig(Web(EC))
    rig.web.go_away()
    error = await rig.refusal(EC.sign(claims_of(ISSUER)))
    assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert error.retry_after is not None
    assert rig.watch.failures == [("id.example is away", None)]


@on_virtual_time
async def test_keys_serve_while_the_issuer_is_away_up_to_their_limit() -> None:
    rig = Rig(Web(EC), refresh=600.0, max_stale=3600.0)
    keeper = asyncio.create_task(rig.keys.run())
    far = EPOCH + 10_000
    known, fresh = EC.sign(claims_of(ISSUER, exp=far)), EC.sign(claims_of(ISSUER, exp=far + 1))
    await asyncio.sleep(1)
    rig.now(known)
    rig.web.go_away()
    await asyncio.sleep(3598.5)
    rig.now(known)
    rig.now(fresh)
    assert rig.watch.failures[-1][1] is not None
    await asyncio.sleep(1)
    for token in (known, fresh):
        error = await rig.refusal(token)
        assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    # What is certain without keys is told all the same.
    assert (
        "algorithm" in (await rig.refusal(forged({"alg": "none"}, claims_of(ISSUER), None))).message
    )
    rig.web.publish(EC)
    await asyncio.sleep(31)
    rig.now(known)
    keeper.cancel()


@on_virtual_time
async def test_a_new_key_during_an_outage_is_no_refusal() -> None:
    rig = Rig(Web(EC))
    await rig.verdict(EC.sign(claims_of(ISSUER)))
    rig.web.go_away()
    for _ in range(3):
        error = await rig.refusal(EC_NEXT.sign(claims_of(ISSUER)))
        assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    rig.now(EC.sign(claims_of(ISSUER)))


@on_virtual_time
async def test_keys_are_refreshed_before_they_are_wanted() -> None:
    rig = Rig(Web(EC), refresh=600.0)
    keeper = asyncio.create_task(rig.keys.run())
    await asyncio.sleep(1)
    assert (rig.web.fetches, rig.watch.fetched) == (1, [1])
    rig.web.publish(EC, EC_NEXT)
    await asyncio.sleep(600)
    assert (rig.web.fetches, rig.watch.fetched) == (2, [1, 2])
    rig.now(EC_NEXT.sign(claims_of(ISSUER)))
    assert rig.web.fetches == 2
    keeper.cancel()


@on_virtual_time
async def test_a_fetch_that_hangs_is_given_up() -> None:
    rig = Rig(Web(EC), fetch_timeout=5.0)
    rig.web.delay = 1e6
    began = rig.clock.monotonic()
    error = await rig.refusal(EC.sign(claims_of(ISSUER)))
    assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
    assert rig.clock.monotonic() - began == pytest.approx(5.0)


@pytest.mark.parametrize(
    "document",
    [
        b"<html>sign in</html>",
        b"[]",
        json.dumps({"issuer": "https://evil.example", "jwks_uri": KEYS_URI}).encode(),
        json.dumps({"issuer": ISSUER, "jwks_uri": "http://id.example/keys"}).encode(),
        json.dumps({"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"}).encode(),
        json.dumps({"issuer": ISSUER, "jwks_uri": 7}).encode(),
        json.dumps({"issuer": ISSUER}).encode(),
        b" " * (2**20 + 1),
    ],
)
def test_a_discovery_document_that_is_not_the_issuers(document: bytes) -> None:
    async def main() -> None:
        rig = Rig(Web(EC))
        rig.web.documents[f"{ISSUER}/.well-known/openid-configuration"] = document
        error = await rig.refusal(EC.sign(claims_of(ISSUER)))
        assert error.reason == v1.ERROR_REASON_SERVICE_UNAVAILABLE
        assert rig.web.fetches == 0

    run(main)


SMALL = SigningKey.new("small", "RS256", bits=1024)


# The small key is small on purpose.
@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
@pytest.mark.parametrize(
    ("jwk", "signer"),
    [
        (EC.jwk(use="enc"), EC),
        (EC.jwk(use=None, key_ops=["sign"]), EC),
        (EC.jwk(alg="ECDH-ES"), EC),
        (EC.jwk(x="AAAA"), EC),
        (EC.jwk(crv="P-999"), EC),
        (EC.jwk(d="AAAA"), EC),
        (EC.jwk(kid=7), EC),
        (SMALL.jwk(), SMALL),
        ({"kty": "oct", "k": "c2VjcmV0", "kid": EC.kid}, EC),
    ],
)
def test_keys_that_are_not_for_verifying_are_left_out(
    jwk: dict[str, Any], signer: SigningKey
) -> None:
    async def main() -> None:
        rig = Rig(Web(ED))
        rig.web.documents[KEYS_URI] = json.dumps({"keys": [jwk, ED.jwk()]}).encode()
        await rig.verdict(ED.sign(claims_of(ISSUER)))
        assert rig.watch.fetched == [1]
        error = await rig.refusal(signer.sign(claims_of(ISSUER)))
        assert error.reason == v1.ERROR_REASON_AUTHENTICATION

    run(main)


@on_virtual_time
async def test_what_is_remembered_is_bounded() -> None:
    rig = Rig(Web(EC), capacity=3)
    tokens = [EC.sign(claims_of(ISSUER, sub=f"user-{number}")) for number in range(10)]
    for token in tokens:
        await rig.verdict(token)
    assert len(rig.tokens._verified) == 3
    assert rig.now(tokens[0]).name == "user-0"


def test_claims_fill_the_principal_as_configured() -> None:
    mapping = ClaimMap(
        claims={
            "name": "email",
            "user": "sub",
            "tenant": "https://acme.example/tenant",
            "service": "act.client.id",
            "roles": "realm_access.roles",
            "scopes": "scope",
        },
        fixed={"tier": "gold"},
        required=("name", "tenant"),
        roles=("caller",),
        role_of={"llm-admins": ("operator", "viewer"), "staff": ("viewer",)},
        scope_prefix="trunkline:",
        models=("gpt-*",),
    )
    claims = {
        "sub": "u-1",
        "email": "ada@acme.example",
        "https://acme.example/tenant": "acme",
        "act": {"client": {"id": "billing"}},
        "realm_access": {"roles": ["llm-admins", "root"]},
        "scope": "openid trunkline:inference.* email",
    }
    caller = mapping.principal(claims, "issuers[corp]")
    assert caller == Principal(
        kind=Kind.TOKEN,
        name="ada@acme.example",
        source="issuers[corp]",
        tenant="acme",
        user="u-1",
        service="billing",
        roles=frozenset({"caller", "operator", "viewer"}),
        scopes=frozenset({"inference.*"}),
        tier="gold",
        models=("gpt-*",),
    )


def test_a_token_whose_scopes_are_all_others_has_none() -> None:
    mapping = ClaimMap(claims={"name": "sub", "scopes": "scope"}, scope_prefix="trunkline:")
    assert mapping.principal({"sub": "a", "scope": "openid"}, "s").scopes == frozenset()
    assert mapping.principal({"sub": "a"}, "s").scopes == frozenset()
    assert ClaimMap().principal({"sub": "a", "scope": "openid"}, "s").scopes is None


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": ["a"]},
        {"sub": "x" * 257},
        {"sub": "a", "groups": {"a": 1}},
        {"sub": "a", "groups": [1]},
        {"sub": "a", "groups": ["x"] * 257},
    ],
)
def test_claims_of_the_wrong_kind_are_refused(claims: dict[str, Any]) -> None:
    async def main() -> None:
        mapping = ClaimMap(claims={"name": "sub", "roles": "groups"})
        policy = TokenPolicy(audiences=frozenset({"trunkline"}), claims=mapping)
        error = await Rig(Web(EC), policy).refusal(EC.sign(claims_of(ISSUER, **claims)))
        assert error.reason == v1.ERROR_REASON_AUTHENTICATION
        assert "claim" in error.message

    run(main)


@pytest.mark.parametrize(
    "wrong",
    [
        {"audiences": frozenset()},
        {"audiences": frozenset({""})},
        {"algorithms": frozenset({"HS256"})},
        {"algorithms": frozenset({"none"})},
        {"algorithms": frozenset()},
        {"skew": -1.0},
    ],
)
def test_policies_that_would_be_unsafe_cannot_be_made(wrong: dict[str, Any]) -> None:
    good: dict[str, Any] = {"audiences": frozenset({"trunkline"})}
    with pytest.raises(ValueError, match=r"audiences|algorithms|skew"):
        TokenPolicy(**{**good, **wrong})
