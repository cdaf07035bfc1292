"""Reads the recorded exchanges that TRUNKLINE_CORPUS names; they are never copied here."""

import base64
import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Exchange:
    """One recorded HTTP exchange; `response` is the body's bytes."""

    origin: str
    provider: str
    host: str
    path: str
    request: str
    status: int
    stream: bool
    headers: dict[str, str]
    response: bytes
    response_exact: bool
    chunk_lengths: tuple[int, ...]


def corpus_dir() -> Path:
    """The folder of reference data, or a skip that says how to get it."""
    path = Path(os.environ.get("TRUNKLINE_CORPUS", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no reference data at {path}: set TRUNKLINE_CORPUS to its folder")
    return path


def read_jsonl(path: Path) -> Iterator[Any]:
    """The records of a gzipped JSON-lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


@cache
def exchanges() -> tuple[Exchange, ...]:
    """Every recorded exchange, in file order."""
    return tuple(
        _exchange(record) for record in read_jsonl(corpus_dir() / "wire" / "wire.jsonl.gz")
    )


def _exchange(record: dict[str, Any]) -> Exchange:
    encoded = record.get("response_b64")
    body = base64.b64decode(encoded) if encoded else (record.get("response") or "").encode()
    return Exchange(
        origin=f"{record['repo']}:{record['file']}#{record['i']}",
        provider=record["provider"],
        host=record["host"],
        path=record["path"],
        request=record.get("request") or "",
        status=record["status"],
        stream=record["stream"],
        headers={k.lower(): v for k, v in (record.get("response_headers") or {}).items()},
        response=body,
        response_exact=bool(record.get("response_exact")),
        chunk_lengths=tuple(record.get("chunk_lens") or ()),
    )
