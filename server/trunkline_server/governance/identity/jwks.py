"""JSON Web Key Sets: the public keys of an issuer, read with suspicion."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError

# What RFC 7518 and RFC 8037 sign with a private key: neither `none` nor the HMACs, whose key
# would be the public one.
ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
_CURVES = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
# RFC 7518, section 3.3.
_MIN_RSA_BITS = 2048
# Every key without an id is tried for a token that names none.
_MAX_KEYS = 64

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


class MalformedKeySetError(ValueError):
    """A document that is no key set, or that holds no key to verify with."""


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """One key; `algorithm` is the only one it may be used with, or empty for those of its
    type. `material` tells keys apart."""

    kid: str
    algorithm: str
    key: PublicKey = field(repr=False, compare=False)
    material: bytes = field(repr=False)

    def suits(self, algorithm: str) -> bool:
        """Whether a signature by an algorithm can be this key's."""
        if self.algorithm and self.algorithm != algorithm:
            return False
        if isinstance(self.key, rsa.RSAPublicKey):
            return algorithm.startswith(("RS", "PS"))
        if isinstance(self.key, ec.EllipticCurvePublicKey):
            return _CURVES.get(algorithm) == self.key.curve.name
        return algorithm == "EdDSA"


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of an issuer; equal when they hold the same keys."""

    keys: frozenset[VerifyingKey]

    def find(self, kid: str, algorithm: str) -> list[VerifyingKey]:
        """The keys that may have signed a token: those of its key id, or all if it names none."""
        return [key for key in self.keys if key.suits(algorithm) and kid in {"", key.kid}]


def read_key_set(document: bytes) -> KeySet:
    """Reads a JWKS (RFC 7517). What cannot verify signatures here is left out: symmetric and
    private keys, keys for encryption, types and curves not known, RSA below 2048 bits.

    Raises MalformedKeySetError.
    """
    try:
        entries = orjson.loads(document)["keys"]
    except (orjson.JSONDecodeError, TypeError, KeyError):
        raise MalformedKeySetError("the document is no JSON Web Key Set") from None
    if not isinstance(entries, list) or len(entries) > _MAX_KEYS:
        raise MalformedKeySetError(f"a key set is a list of at most {_MAX_KEYS} keys")
    keys = frozenset(key for entry in entries if (key := _key(entry)) is not None)
    if not keys:
        raise MalformedKeySetError("the key set holds no key to verify with")
    return KeySet(keys)


def _key(entry: Any) -> VerifyingKey | None:
    if not isinstance(entry, dict) or "d" in entry or entry.get("use", "sig") != "sig":
        return None
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    kid, algorithm = entry.get("kid", ""), entry.get("alg", "")
    if not isinstance(kid, str) or (algorithm and algorithm not in ALGORITHMS):
        return None
    try:
        key = _public_key(entry)
    except (PyJWTError, ValueError, TypeError, KeyError, binascii.Error):
        # Whatever the parsers raise for numbers that are no key.
        return None
    if key is None:
        return None
    fields = ("kty", "crv", "n", "e", "x", "y")
    material = orjson.dumps([entry.get(name) for name in fields])
    return VerifyingKey(kid, algorithm, key, material)


def _public_key(entry: Mapping[str, Any]) -> PublicKey | None:
    kind = entry.get("kty")
    key: object = None
    if kind == "RSA":
        key = RSAAlgorithm.from_jwk(dict(entry))
        if isinstance(key, rsa.RSAPublicKey) and key.key_size < _MIN_RSA_BITS:
            return None
    elif kind == "EC":
        key = ECAlgorithm.from_jwk(dict(entry))
    elif kind == "OKP" and entry.get("crv") == "Ed25519":
        key = OKPAlgorithm.from_jwk(dict(entry))
    if isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        return key
    return None


def unpadded(text: str) -> bytes:
    """Decodes base64url without padding; raises ValueError."""
    if not text.isascii():
        raise ValueError("not base64url")
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
