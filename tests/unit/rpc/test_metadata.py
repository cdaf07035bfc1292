"""What is read from a call's metadata."""

import random
import re

import pytest

from trunkline_server.rpc.metadata import read_metadata

TRACE = f"00-{'a1' * 16}-{'b2' * 8}-01"


def test_a_valid_context_is_the_callers() -> None:
    metadata: list[tuple[str, str | bytes]] = [
        ("authorization", "Bearer x"),
        ("traceparent", TRACE),
        ("tracestate", "vendor=1"),
        ("other", b"\x00"),
    ]
    read = read_metadata(metadata, random.Random(1))
    assert read == ("Bearer x", TRACE, "vendor=1", False)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "nonsense",
        TRACE.upper(),
        TRACE.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-{'b2' * 8}-01",
        f"00-{'a1' * 16}-{'0' * 16}-01",
        TRACE[:-1],
        TRACE + "\n",
    ],
)
def test_an_invalid_context_begins_a_new_trace(bad: str) -> None:
    read = read_metadata([("traceparent", bad), ("tracestate", "x=1")], random.Random(1))
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", read.traceparent)
    assert read.tracestate == ""
    assert read.begins_trace


def test_a_later_version_is_read_as_version_00() -> None:
    read = read_metadata([("traceparent", f"01{TRACE[2:]}-more")], random.Random(1))
    assert read.traceparent == TRACE


def test_no_metadata_is_no_error() -> None:
    assert read_metadata(None, random.Random(1)).authorization == ""
