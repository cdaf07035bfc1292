"""Envelope encryption: a data key per record, wrapped by a master key; AES-256-GCM for both.

A sealed record, version 1, integers big-endian:

    2 bytes   "TE"
    1 byte    format version, 1
    1 byte    length of the master key's id
    n bytes   the id, UTF-8
    8 bytes   the master key's fingerprint
    12 bytes  nonce of the wrapped data key
    48 bytes  the data key, wrapped, with its tag
    12 bytes  nonce of the content
    rest      the content, encrypted, with its tag of 16 bytes

The associated data of both encryptions is everything up to the fingerprint, then what the
ciphertext is ("key" or "content"), the record's kind and its name, each with its length: a
ciphertext that is put in another record's place does not open.

Nonces are random. Every data key encrypts once; a master key may wrap 2^32 records before
NIST SP 800-38D, 8.3, asks for another.
"""

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from trunkline import v1
from trunkline_server.errors import TrunklineError

_MAGIC = b"TE\x01"
_KEY_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16
_MARK_BYTES = 8
_WRAPPED_BYTES = _KEY_BYTES + _TAG_BYTES


class EnvelopeError(TrunklineError):
    """A record that cannot be opened."""

    def __init__(self, message: str) -> None:
        super().__init__(v1.ERROR_REASON_INTERNAL, message)


class UnknownFormatError(EnvelopeError):
    """The bytes are no sealed record, or one of a later version."""


class MasterKeyError(EnvelopeError):
    """The record was sealed under a master key that is not here; `key_id` names it."""

    def __init__(self, message: str, key_id: str) -> None:
        super().__init__(message)
        self.key_id = key_id


class UnknownMasterKeyError(MasterKeyError):
    """No master key has the record's key id."""


class WrongMasterKeyError(MasterKeyError):
    """The master key of that id is not the one that sealed the record."""


class TamperedError(EnvelopeError):
    """The record was changed, cut, or put in another one's place."""


@dataclass(frozen=True, slots=True)
class MasterKey:
    """A key that wraps data keys. `fingerprint` tells keys apart and gives nothing away."""

    id: str
    fingerprint: bytes
    cipher: AESGCM = field(repr=False)

    @classmethod
    def of(cls, key_id: str, key: bytes) -> "MasterKey":
        """The master key of 32 bytes. Raises ValueError, which does not quote the key."""
        if not 1 <= len(key_id.encode()) <= 255:
            raise ValueError("a master key's id has 1 to 255 bytes")
        if len(key) != _KEY_BYTES:
            raise ValueError(f"master key {key_id!r} has {len(key)} bytes; 32 are needed")
        mac = hmac.HMAC(key, hashes.SHA256())
        mac.update(b"trunkline master key fingerprint")
        return cls(key_id, mac.finalize()[:_MARK_BYTES], AESGCM(key))


class Keyring:
    """The master keys: the first one given seals, all of them open."""

    def __init__(self, keys: Iterable[MasterKey]) -> None:
        """Raises ValueError without keys, and for an id that comes twice."""
        listed = list(keys)
        self._keys = {key.id: key for key in listed}
        if not listed:
            raise ValueError("at least one master key is needed")
        if len(self._keys) < len(listed):
            raise ValueError("two master keys have the same id")
        self._writer = listed[0]

    @property
    def writes_with(self) -> str:
        """The id of the key that seals."""
        return self._writer.id

    def seal(self, kind: str, name: str, content: bytes) -> bytes:
        """The content, sealed as the record `name` of that kind."""
        key = self._writer
        header = _header(key)
        data_key, nonces = os.urandom(_KEY_BYTES), os.urandom(2 * _NONCE_BYTES)
        wrap_nonce, nonce = nonces[:_NONCE_BYTES], nonces[_NONCE_BYTES:]
        wrapped = key.cipher.encrypt(wrap_nonce, data_key, _bound(header, b"key", kind, name))
        sealed = AESGCM(data_key).encrypt(nonce, content, _bound(header, b"content", kind, name))
        return b"".join((header, wrap_nonce, wrapped, nonce, sealed))

    def open(self, kind: str, name: str, sealed: bytes) -> bytes:
        """The content of a sealed record. Raises EnvelopeError."""
        key, start = self._key_of(kind, name, sealed)
        header = sealed[:start]
        if len(sealed) < start + 2 * _NONCE_BYTES + _WRAPPED_BYTES + _TAG_BYTES:
            raise TamperedError(f"{kind} {name!r}: the sealed record is cut short")
        wrapped = start + _NONCE_BYTES
        nonce = wrapped + _WRAPPED_BYTES
        content = nonce + _NONCE_BYTES
        try:
            data_key = key.cipher.decrypt(
                sealed[start:wrapped], sealed[wrapped:nonce], _bound(header, b"key", kind, name)
            )
            return AESGCM(data_key).decrypt(
                sealed[nonce:content], sealed[content:], _bound(header, b"content", kind, name)
            )
        except InvalidTag:
            raise TamperedError(
                f"{kind} {name!r}: the sealed record was changed, or is another record's"
            ) from None

    def key_id(self, kind: str, name: str, sealed: bytes) -> str:
        """The id of the key that sealed a record, which is among these; as cheap as it sounds.

        Raises UnknownFormatError, TamperedError and MasterKeyError.
        """
        return self._key_of(kind, name, sealed)[0].id

    def _key_of(self, kind: str, name: str, sealed: bytes) -> tuple[MasterKey, int]:
        """The record's master key, and where its header ends."""
        if not sealed.startswith(_MAGIC):
            raise UnknownFormatError(f"{kind} {name!r}: no sealed record of a known version")
        length = sealed[3] if len(sealed) > 3 else 0
        end = 4 + length
        start = end + _MARK_BYTES
        if not length or len(sealed) < start:
            raise TamperedError(f"{kind} {name!r}: the sealed record is cut short")
        key_id = sealed[4:end].decode(errors="replace")
        key = self._keys.get(key_id)
        if key is None:
            raise UnknownMasterKeyError(
                f"{kind} {name!r} was sealed under master key {key_id!r}, which is not configured;"
                f" configured are {', '.join(map(repr, self._keys))}",
                key_id,
            )
        if key.fingerprint != sealed[end:start]:
            raise WrongMasterKeyError(
                f"{kind} {name!r} was sealed under another key than the master key configured"
                f" as {key_id!r}",
                key_id,
            )
        return key, start


def _header(key: MasterKey) -> bytes:
    name = key.id.encode()
    return b"".join((_MAGIC, bytes((len(name),)), name, key.fingerprint))


def _bound(header: bytes, part: bytes, kind: str, name: str) -> bytes:
    """Associated data: what a ciphertext belongs to."""
    fields = (part, kind.encode(), name.encode())
    return header + b"".join(struct.pack(">I", len(value)) + value for value in fields)
