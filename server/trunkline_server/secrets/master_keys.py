"""Master keys from texts: 32 bytes, written as base64 or as hex."""

import base64
import binascii
import os
from collections.abc import Mapping

from trunkline_server.secrets.envelope import Keyring, MasterKey

_HEX_DIGITS = 64
_KEY_BYTES = 32


def new_key() -> str:
    """A new master key, as base64."""
    return base64.b64encode(os.urandom(_KEY_BYTES)).decode()


def keyring_of(texts: Mapping[str, str]) -> Keyring:
    """The keyring of keys by their ids; the first one seals.

    Raises ValueError, which never quotes a text, for one that is no key.
    """
    return Keyring(MasterKey.of(key_id, decode_key(key_id, text)) for key_id, text in texts.items())


def decode_key(key_id: str, text: str) -> bytes:
    """The bytes of a key written as 64 hex digits or as base64 of either alphabet."""
    text = text.strip()
    try:
        if len(text) == _HEX_DIGITS:
            return bytes.fromhex(text)
        plain = text.rstrip("=").replace("-", "+").replace("_", "/")
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (ValueError, binascii.Error):
        raise ValueError(f"master key {key_id!r} is neither base64 nor hex") from None
