"""Entries and the chain of their hashes.

An entry's hash is SHA-256 over, in this order: the tag below; the hash before; `seq` and `at`,
each as a signed integer of eight bytes, big-endian; and then tenant, actor, action, resource,
before, after and details, each as its length in four bytes, big-endian, and its bytes, texts in
UTF-8. A digest that is not there has the length 0xffffffff and no bytes.
"""

import secrets
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

import orjson

from trunkline_server.governance.audit.ports import Head, Link, Record

_TAG = b"trunkline audit 1\x00"
_ABSENT = b"\xff\xff\xff\xff"
_NUMBER = struct.Struct(">q")
_LENGTH = struct.Struct(">I")

# What stands in `details` beside an act's own.
_RESERVED = ("id", "outcome", "address", "request_id")
_MAX_TEXT = 1024
_MAX_DETAILS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something that was done or tried, to be recorded.

    `at` is microseconds since the Unix epoch. `actor` is who, such as `keys[team-a]`, `action`
    what, such as `admin.providers.update`, and `resource` on what. `outcome` is `ok`, `denied`
    or `failed`. `before` and `after` are SHA-256 digests of the resource. None of it holds a
    secret or a payload. `id` is random, so that an act that may have been written is not written
    twice.
    """

    at: int
    actor: str
    action: str
    resource: str = ""
    tenant: str = ""
    outcome: str = "ok"
    before: bytes | None = None
    after: bytes | None = None
    address: str = ""
    request_id: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    id: str = field(default_factory=lambda: secrets.token_hex(8))


def seal(act: Act, head: Head) -> Record:
    """The entry that records an act at the end of a chain.

    Texts are made fit for every database: cut to 1,024 characters, without NUL and what is no
    Unicode.
    """
    fields = {name: _clean(value) for name, value in list(act.details.items())[:_MAX_DETAILS]}
    fields.update({name: _clean(getattr(act, name)) for name in _RESERVED})
    present = {name: value for name, value in fields.items() if value}
    unsealed = Record(
        seq=head.count + 1,
        at=act.at,
        tenant=_clean(act.tenant),
        actor=_clean(act.actor),
        action=_clean(act.action),
        resource=_clean(act.resource),
        before=act.before,
        after=act.after,
        details=orjson.dumps(present, option=orjson.OPT_SORT_KEYS).decode(),
        prev_hash=head.hash,
        hash=b"",
    )
    return replace(unsealed, hash=hash_of(unsealed))


def hash_of(record: Record) -> bytes:
    """The hash that an entry should have."""
    before, after = _encoded(record)
    return sha256(before + _NUMBER.pack(record.seq) + after).digest()


def place_of(record: Record, reach: int) -> int | None:
    """The sequence number that an entry was hashed with, at most `reach` from its own; None if
    none is."""
    before, after = _encoded(record)
    places: Iterable[int] = range(record.seq - reach, record.seq + reach + 1)
    for seq in (record.seq, *places):
        digest = sha256(before + _NUMBER.pack(seq) + after).digest()
        if digest == record.hash:
            return seq
    return None


def _encoded(record: Record) -> tuple[bytes, bytes]:
    """What is hashed before the sequence number, and after it."""
    parts = [_NUMBER.pack(record.at)]
    for text in (record.tenant, record.actor, record.action, record.resource):
        parts += _sized(text.encode())
    for digest in (record.before, record.after):
        parts += [_ABSENT] if digest is None else _sized(digest)
    parts += _sized(record.details.encode())
    return _TAG + record.prev_hash, b"".join(parts)


def linking(acts: Iterable[Act]) -> Link:
    """Makes entries of acts at whatever the end of the chain is."""

    def link(head: Head) -> Sequence[Record]:
        records = []
        for act in acts:
            record = seal(act, head)
            head = Head(record.seq, record.hash)
            records.append(record)
        return records

    return link


def act_id(record: Record) -> str:
    """The id of the act that an entry records; empty if it has none."""
    try:
        found = orjson.loads(record.details)
    except orjson.JSONDecodeError:
        return ""
    return str(found.get("id", "")) if isinstance(found, dict) else ""


def _sized(data: bytes) -> list[bytes]:
    return [_LENGTH.pack(len(data)), data]


def _clean(text: str) -> str:
    cut = text[:_MAX_TEXT].replace("\x00", "\ufffd")
    return cut.encode("utf-8", "replace").decode()
