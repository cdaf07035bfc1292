"""Master keys from settings: references to 32 bytes, written as base64 or as hex."""

import base64
import binascii
from collections.abc import Mapping

from trunkline_server.secrets.envelope import Keyring, MasterKey
from trunkline_server.secrets.ports import SecretSource

_HEX_DIGITS = 64


async def keyring_from(references: Mapping[str, str], source: SecretSource) -> Keyring:
    """The keyring of the keys that references name, by key id; the first one seals.

    Raises SecretError for a reference that leads nowhere, and ValueError, which never quotes
    a value, for one that leads to no key.
    """
    keys = []
    for key_id, reference in references.items():
        found = await source.fetch(reference)
        keys.append(MasterKey.of(key_id, decode_key(key_id, found.value)))
    return Keyring(keys)


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
