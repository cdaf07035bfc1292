"""Bearer tokens: JSON Web Tokens that configured issuers have signed."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, NamedTuple

import jwt
import orjson

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.identity.claims import ClaimError, ClaimMap, Claims
from trunkline_server.governance.identity.issuers import IssuerKeys, UnknownKeyError
from trunkline_server.governance.identity.jwks import ALGORITHMS, unpadded
from trunkline_server.governance.identity.principal import Principal

_MAX_TOKEN = 16 * 1024
# Verified tokens that are remembered; the oldest go first.
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPolicy:
    """What an issuer's tokens must be, and whom they stand for.

    One of `audiences` must be among the token's. `algorithms` are the only ones accepted,
    whatever a token says. `skew` is how far, in seconds, clocks may differ.
    """

    audiences: frozenset[str]
    algorithms: frozenset[str] = frozenset({"RS256", "ES256", "EdDSA"})
    skew: float = 60.0
    claims: ClaimMap = field(default_factory=ClaimMap)

    def __post_init__(self) -> None:
        wrong = sorted(self.algorithms - ALGORITHMS)
        if wrong or not self.algorithms:
            raise ValueError(f"algorithms must be among {', '.join(sorted(ALGORITHMS))}")
        if not self.audiences or "" in self.audiences:
            raise ValueError("audiences must name at least one")
        if not 0 <= self.skew <= 600:
            raise ValueError("skew must be from 0 to 600 seconds")


class Issuer(NamedTuple):
    """An issuer whose tokens are accepted."""

    keys: IssuerKeys
    policy: TokenPolicy


class _Verified(NamedTuple):
    principal: Principal
    # Wall time from which it is expired, and the keys that it was verified with.
    until: float
    keys: IssuerKeys
    generation: int


class Tokens:
    """Verifies tokens, each once: what it stands for is remembered by the token's digest until
    it expires or its issuer's keys change.

    Immutable but for that memo; a reload makes another with the IssuerKeys that stay.
    """

    def __init__(self, issuers: Iterable[Issuer], capacity: int = _REMEMBERED) -> None:
        self._issuers = {issuer.keys.endpoint.issuer: issuer for issuer in issuers}
        self._capacity = capacity
        self._verified: dict[bytes, _Verified] = {}
        self._jws = jwt.PyJWS(algorithms=sorted(ALGORITHMS))

    def authenticate(self, token: str, digest: bytes, now: float) -> Principal:
        """The caller that a token stands for; `digest` is its own, `now` in Unix seconds.

        Raises TrunklineError: AUTHENTICATION for a token that is not good, SERVICE_UNAVAILABLE
        when that cannot be told because the issuer is away, KeysPendingError while its keys are
        being fetched.
        """
        known = self._verified.get(digest)
        if known is not None and known.generation == known.keys.generation and now < known.until:
            known.keys.check_usable()
            return known.principal
        return self._verify(token, digest, now)

    def _verify(self, token: str, digest: bytes, now: float) -> Principal:
        self._verified.pop(digest, None)
        header, unverified = _parts(token)
        issuer = self._issuers.get(_issuer_of(unverified))
        if issuer is None:
            raise _refusal("the token's issuer is not accepted here")
        keys, policy = issuer
        claims = self._signed(token, header, keys, policy)
        name = keys.endpoint.name
        until = _check(claims, policy, now, name)
        try:
            principal = policy.claims.principal(claims, f"issuers[{name}]")
        except ClaimError as error:
            raise _refusal(str(error), name) from None
        while len(self._verified) >= self._capacity:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = _Verified(principal, until, keys, keys.generation)
        return principal

    def _signed(
        self, token: str, header: dict[str, Any], keys: IssuerKeys, policy: TokenPolicy
    ) -> Claims:
        """The claims of a token that one of its issuer's keys has signed."""
        name = keys.endpoint.name
        algorithm, kid = header.get("alg"), header.get("kid", "")
        if not isinstance(algorithm, str) or algorithm not in policy.algorithms:
            raise _refusal("the token's algorithm is not accepted", name)
        if "crit" in header or not isinstance(kid, str):
            raise _refusal("the token's header demands what is not understood", name)
        try:
            for key in keys.find(kid, algorithm):
                try:
                    payload = self._jws.decode(token, key.key, algorithms=[algorithm])
                except jwt.InvalidTokenError:
                    continue
                return _object(payload)
            if not kid:
                # None of the keys at hand: a new one may have signed it.
                keys.ask_again(kid)
        except UnknownKeyError:
            raise _refusal("the token's key is none of its issuer's", name) from None
        raise _refusal("the token's signature is wrong", name)


def _parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The header and the claims as they are written, not verified."""
    if len(token) > _MAX_TOKEN:
        raise _refusal("the token is too large")
    try:
        header, claims, _ = token.split(".")
        return _object(unpadded(header)), _object(unpadded(claims))
    except ValueError:
        raise _refusal("the token is no signed JSON Web Token") from None


def _object(text: bytes) -> dict[str, Any]:
    value = orjson.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - It is the text that is wrong.
    return value


def _issuer_of(claims: Claims) -> str:
    issuer = claims.get("iss")
    return issuer if isinstance(issuer, str) else ""


def _check(claims: Claims, policy: TokenPolicy, now: float, issuer: str) -> float:
    """Checks times and audience (RFC 7519, section 4.1) and gives when the token is over."""
    expires = _time(claims, "exp", issuer)
    if expires is None:
        raise _refusal("the token never expires", issuer)
    until = expires + policy.skew
    if now >= until:
        raise _refusal("the token has expired", issuer)
    for name in ("nbf", "iat"):
        moment = _time(claims, name, issuer)
        if moment is not None and moment - policy.skew > now:
            raise _refusal("the token is not valid yet", issuer)
    audience = claims.get("aud")
    named = audience if isinstance(audience, list) else [audience]
    if not any(isinstance(one, str) and one in policy.audiences for one in named):
        raise _refusal("the token is meant for another audience", issuer)
    return until


def _time(claims: Claims, name: str, issuer: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise _refusal(f"the token's {name} is no time", issuer)
    return float(value)


def _refusal(problem: str, issuer: str = "") -> TrunklineError:
    metadata = {"scheme": "bearer"}
    if issuer:
        metadata["issuer"] = issuer
    return TrunklineError(v1.ERROR_REASON_AUTHENTICATION, problem, metadata=metadata)
