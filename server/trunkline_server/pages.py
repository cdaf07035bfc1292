"""Pages of lists: sizes, and opaque tokens bound to the question that they came from."""

import base64
import hashlib
from typing import Any

import orjson

from trunkline_server.errors import invalid

DEFAULT_SIZE = 100
MAX_SIZE = 1000
_DIGEST_BYTES = 8


def size_of(asked: int) -> int:
    """How many fit on a page; raises TrunklineError with INVALID_REQUEST for a size below 0."""
    if asked < 0:
        raise invalid("page_size", "must not be negative")
    return min(asked or DEFAULT_SIZE, MAX_SIZE)


def write_token(after: Any, *question: Any) -> str:
    """The token of the page that follows `after`, which is what JSON can hold."""
    place = orjson.dumps(after)
    digest = hashlib.blake2b(orjson.dumps([after, question]), digest_size=_DIGEST_BYTES).digest()
    return base64.urlsafe_b64encode(digest + place).decode().rstrip("=")


def read_token(token: str, *question: Any) -> Any:
    """What the page follows; None for the empty token of the first one.

    Raises TrunklineError with INVALID_REQUEST for a token that this question did not give.
    """
    if not token:
        return None
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        after = orjson.loads(raw[_DIGEST_BYTES:])
    except ValueError:
        after = None
    if after is None or write_token(after, *question) != token:
        raise invalid("page_token", "is not one that this list gave; leave it empty to begin anew")
    return after
