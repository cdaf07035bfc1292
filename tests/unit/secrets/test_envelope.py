"""Sealing: the documented format, and every way in which a record must not open."""

import random
import struct

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from trunkline_server.secrets.envelope import (
    EnvelopeError,
    Keyring,
    MasterKey,
    TamperedError,
    UnknownFormatError,
    UnknownMasterKeyError,
    WrongMasterKeyError,
)
from trunkline_server.secrets.master_keys import decode_key

OLD = bytes(range(32))
NEW = bytes(range(32, 64))


def ring(**keys: bytes) -> Keyring:
    return Keyring(MasterKey.of(key_id, key) for key_id, key in keys.items())


def test_a_record_opens_as_it_was_sealed() -> None:
    keys = ring(k1=OLD)
    for content in (b"", b"sk-1", bytes(100_000)):
        assert keys.open("credential", "openai", keys.seal("credential", "openai", content)) == (
            content
        )


def test_the_format_is_the_documented_one() -> None:
    """Opens a record by hand, after the module's description alone."""
    sealed = ring(k1=OLD).seal("credential", "openai", b"sk-1")
    assert sealed[:6] == b"TE\x01\x02k1"
    header, rest = sealed[:14], sealed[14:]

    def bound(part: bytes) -> bytes:
        fields = (part, b"credential", b"openai")
        return header + b"".join(struct.pack(">I", len(f)) + f for f in fields)

    data_key = AESGCM(OLD).decrypt(rest[:12], rest[12:60], bound(b"key"))
    assert len(data_key) == 32
    assert AESGCM(data_key).decrypt(rest[60:72], rest[72:], bound(b"content")) == b"sk-1"
    with pytest.raises(InvalidTag):
        AESGCM(data_key).decrypt(rest[60:72], rest[72:], bound(b"key"))


def test_every_changed_bit_and_every_cut_is_found() -> None:
    keys = ring(k1=OLD)
    sealed = keys.seal("credential", "openai", b"sk-12345")
    for place in range(len(sealed)):
        for bit in range(8):
            spoilt = bytearray(sealed)
            spoilt[place] ^= 1 << bit
            with pytest.raises(EnvelopeError):
                keys.open("credential", "openai", bytes(spoilt))
    for end in range(len(sealed)):
        with pytest.raises((TamperedError, UnknownFormatError)):
            keys.open("credential", "openai", sealed[:end])
    with pytest.raises(TamperedError):
        keys.open("credential", "openai", sealed + b"\0")


def test_ciphertexts_cannot_be_exchanged() -> None:
    keys = ring(k1=OLD)
    sealed = keys.seal("credential", "openai", b"sk-1")
    for kind, name in (("credential", "other"), ("secret", "openai"), ("credentia", "lopenai")):
        with pytest.raises(TamperedError):
            keys.open(kind, name, sealed)


def test_halves_of_two_versions_of_one_record_do_not_fit() -> None:
    keys = ring(k1=OLD)
    first, second = (keys.seal("credential", "openai", text) for text in (b"sk-1", b"sk-2"))
    with pytest.raises(TamperedError):
        keys.open("credential", "openai", first[:74] + second[74:])


def test_all_keys_read_and_the_first_writes() -> None:
    sealed = ring(old=OLD).seal("secret", "a", b"x")
    both = ring(new=NEW, old=OLD)
    assert both.open("secret", "a", sealed) == b"x"
    assert both.key_id("secret", "a", both.seal("secret", "a", b"x")) == "new"
    assert both.key_id("secret", "a", sealed) == "old"


def test_a_missing_and_a_wrong_master_key_are_told_by_id() -> None:
    sealed = ring(k1=OLD).seal("secret", "a", b"x")
    with pytest.raises(UnknownMasterKeyError, match=r"'k1'.*configured are 'k2'") as missing:
        ring(k2=OLD).open("secret", "a", sealed)
    assert missing.value.key_id == "k1"
    with pytest.raises(WrongMasterKeyError, match="'k1'") as wrong:
        ring(k1=NEW).open("secret", "a", sealed)
    assert wrong.value.key_id == "k1"


def test_garbage_is_no_record() -> None:
    keys = ring(k1=OLD)
    rng = random.Random(7)
    for length in range(200):
        with pytest.raises(UnknownFormatError):
            keys.open("secret", "a", b"x" + rng.randbytes(length))


def test_nothing_repeats() -> None:
    keys = ring(k1=OLD)
    sealed = {keys.seal("secret", "a", b"x")[14:74] for _ in range(200)}
    assert len({part[:12] for part in sealed}) == len({part[12:] for part in sealed}) == 200


def test_keys_do_not_show() -> None:
    key = MasterKey.of("k1", OLD)
    assert "AESGCM" not in repr(key)
    assert OLD.hex() not in repr(key)
    assert key.fingerprint != MasterKey.of("k1", NEW).fingerprint


@pytest.mark.parametrize(
    "text", [OLD.hex(), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", f" {OLD.hex()}\n"]
)
def test_keys_are_hex_or_base64(text: str) -> None:
    assert decode_key("k1", text) == OLD


def test_both_alphabets_of_base64_are_read() -> None:
    assert decode_key("k", "-__7__v_") == decode_key("k", "+//7//v/") == b"\xfb\xff\xfb\xff\xfb\xff"


@pytest.mark.parametrize("text", ["hunter2!", "zz" * 32, "ä" * 10])
def test_what_is_no_key_is_not_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="'k1' is neither") as refused:
        decode_key("k1", text)
    assert text not in str(refused.value)


def test_keyrings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Keyring([])
    with pytest.raises(ValueError, match="same id"):
        Keyring([MasterKey.of("a", OLD), MasterKey.of("a", NEW)])
    with pytest.raises(ValueError, match="16 bytes; 32"):
        MasterKey.of("a", bytes(16))
    with pytest.raises(ValueError, match="id has"):
        MasterKey.of("", OLD)
