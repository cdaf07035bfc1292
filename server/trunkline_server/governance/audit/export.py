"""The audit trail as lines of JSON, which can be verified without the database."""

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from trunkline_server.governance.audit.ports import Record

_TEXTS = ("tenant", "actor", "action", "resource", "details")


class ExportError(ValueError):
    """A line that is no entry; the message names it."""


def to_line(record: Record) -> bytes:
    """One entry, with its line's end. Digests and hashes are in hexadecimal, and `details` is the
    text that was hashed."""
    line = {
        "seq": record.seq,
        "at": record.at,
        "tenant": record.tenant,
        "actor": record.actor,
        "action": record.action,
        "resource": record.resource,
        "before": None if record.before is None else record.before.hex(),
        "after": None if record.after is None else record.after.hex(),
        "details": record.details,
        "prev_hash": record.prev_hash.hex(),
        "hash": record.hash.hex(),
    }
    return orjson.dumps(line) + b"\n"


def from_lines(lines: Iterable[bytes]) -> Iterator[Record]:
    """The entries of an export; raises ExportError."""
    for number, line in enumerate(lines, 1):
        try:
            yield _record(orjson.loads(line))
        except (ValueError, TypeError, KeyError):
            raise ExportError(f"line {number}: this is no entry of an audit trail") from None


def _record(line: dict[str, Any]) -> Record:
    texts = {name: line[name] for name in _TEXTS}
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError
    return Record(
        seq=int(line["seq"]),
        at=int(line["at"]),
        **texts,
        before=_digest(line["before"]),
        after=_digest(line["after"]),
        prev_hash=bytes.fromhex(line["prev_hash"]),
        hash=bytes.fromhex(line["hash"]),
    )


def _digest(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)
