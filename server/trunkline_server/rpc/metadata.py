"""What the router reads from a call's metadata."""

import random
import re
from collections.abc import Iterable
from typing import NamedTuple

# W3C Trace Context, version 00: trace-id, parent-id and flags; all-zero ids are invalid.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)

# The last bit of a trace id and that of a span id, one behind the other: set, neither is zero.
_NEITHER_ZERO = 1 << 64 | 1


class CallMetadata(NamedTuple):
    """`traceparent` is always valid: the caller's, or the one of a trace that begins here."""

    authorization: str
    traceparent: str
    tracestate: str
    begins_trace: bool


def read_authorization(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """The authorization alone, for what is no call and has no trace; empty if there is none."""
    authorization = ""
    for key, value in metadata or ():
        if key == "authorization":
            authorization = str(value)
    return authorization


def read_forwarded_for(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """What proxies say of whom they speak for; of several values all, joined in their order."""
    return ",".join(str(value) for key, value in metadata or () if key == "x-forwarded-for")


def read_metadata(
    metadata: Iterable[tuple[str, str | bytes]] | None, rng: random.Random
) -> CallMetadata:
    """Reads what matters; of a repeated key the last value counts."""
    authorization = traceparent = tracestate = ""
    for key, value in metadata or ():
        if key == "authorization":
            authorization = str(value)
        elif key == "traceparent":
            traceparent = str(value)
        elif key == "tracestate":
            tracestate = str(value)
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if match is None:
        return CallMetadata(authorization, new_traceparent(rng), "", True)
    trace_id, parent_id, flags, _ = match.groups()
    return CallMetadata(authorization, f"00-{trace_id}-{parent_id}-{flags}", tracestate, False)


def new_traceparent(rng: random.Random) -> str:
    """The context of a trace that begins here and is not sampled."""
    digits = f"{rng.getrandbits(192) | _NEITHER_ZERO:048x}"
    return f"00-{digits[:32]}-{digits[32:]}-00"
