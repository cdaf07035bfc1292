"""Signatures by which a simulated vendor recognises its own reasoning.

The key is no secret: the signatures only have to be ones that a caller does not make up or
change by accident.
"""

import base64
import hashlib

_KEY = b"trunkline simulator"
_MARK_BYTES = 12


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, key=_KEY, digest_size=24).digest()


def sign(text: str) -> str:
    """The signature of exactly this text."""
    return base64.b64encode(_digest(text.encode())).decode()


def is_signature_of(signature: str, text: str) -> bool:
    return signature == sign(text)


def token(content: str) -> str:
    """An opaque token that proves its own origin, whatever it is later sent along with."""
    mark = _digest(b"mark" + content.encode())[:_MARK_BYTES]
    return base64.b64encode(mark + _digest(mark)).decode()


def decode_base64(text: str) -> bytes:
    """The bytes of base64 in either alphabet, with or without padding, as Google reads it.

    Raises ValueError.
    """
    plain = text.replace("-", "+").replace("_", "/").rstrip("=")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def is_token(text: str) -> bool:
    try:
        raw = decode_base64(text)
    except ValueError:
        return False
    return raw[_MARK_BYTES:] == _digest(raw[:_MARK_BYTES])
