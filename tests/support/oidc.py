"""An OpenID Connect issuer for tests: real keys, real tokens, and documents over real HTTP."""

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.support.virtual_time import EPOCH

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_CURVES: Mapping[str, ec.EllipticCurve] = {
    "ES256": ec.SECP256R1(),
    "ES384": ec.SECP384R1(),
    "ES512": ec.SECP521R1(),
}


@dataclass(frozen=True)
class SigningKey:
    """A private key with its id and the algorithm that it signs by."""

    kid: str
    algorithm: str
    private: PrivateKey

    @classmethod
    def new(cls, kid: str, algorithm: str = "ES256", bits: int = 2048) -> "SigningKey":
        private: PrivateKey
        if algorithm in _CURVES:
            private = ec.generate_private_key(_CURVES[algorithm])
        elif algorithm == "EdDSA":
            private = ed25519.Ed25519PrivateKey.generate()
        else:
            private = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        return cls(kid, algorithm, private)

    def jwk(self, **changes: Any) -> dict[str, Any]:
        """The public key as a JWKS holds it; fields changed to None are left out."""
        public: dict[str, Any]
        if isinstance(self.private, rsa.RSAPrivateKey):
            public = RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        elif isinstance(self.private, ec.EllipticCurvePrivateKey):
            public = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        else:
            public = OKPAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        public.pop("key_ops", None)
        fields = {**public, "kid": self.kid, "alg": self.algorithm, "use": "sig", **changes}
        return {name: value for name, value in fields.items() if value is not None}

    def sign(self, claims: Mapping[str, Any], **header: Any) -> str:
        """A token; header fields set to None are left out."""
        named = {"kid": self.kid, **header}
        headers = {name: value for name, value in named.items() if value is not None}
        return jwt.encode(dict(claims), self.private, algorithm=self.algorithm, headers=headers)


def jwks(keys: Iterable[SigningKey]) -> bytes:
    """The key set of some keys."""
    return json.dumps({"keys": [key.jwk() for key in keys]}).encode()


def claims_of(issuer: str, **changes: Any) -> dict[str, Any]:
    """The claims of a good token at the virtual clock's start; those changed to None are left
    out."""
    claims = {
        "iss": issuer,
        "aud": "trunkline",
        "sub": "ada",
        "iat": EPOCH,
        "exp": EPOCH + 3600,
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not None}


class OidcServer:
    """Serves discovery and keys on a port of its own, until it is closed.

    `keys` may be changed at any time; `fetches` counts what was asked for, by path.
    """

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = list(keys)
        self.fetches: dict[str, int] = {}
        # Set when keys are asked for.
        self.asked = asyncio.Event()
        self.url = ""
        self._runner: web.AppRunner | None = None
        self._port = 0

    async def start(self) -> None:
        """Listens; after a stop, on the same port as before."""
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/keys", self._keys)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Goes away: nothing listens any more."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _discovery(self, request: web.Request) -> web.Response:
        self._count(request)
        return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})

    async def _keys(self, request: web.Request) -> web.Response:
        self._count(request)
        self.asked.set()
        return web.Response(body=jwks(self.keys), content_type="application/json")

    def _count(self, request: web.Request) -> None:
        self.fetches[request.path] = self.fetches.get(request.path, 0) + 1
