"""Tokens that continue a list: opaque to callers, bound to the question they came from."""

import base64
import hashlib

from trunkline_server.errors import TrunklineError, invalid

_DIGEST_BYTES = 8


def write_token(last: str, question: tuple[object, ...]) -> str:
    """The token of the page after the one that ended with `last`."""
    return base64.urlsafe_b64encode(_digest(question, last) + last.encode()).decode().rstrip("=")


def read_token(token: str, question: tuple[object, ...]) -> str:
    """The name after which the page begins; empty for the first page's empty token.

    Raises TrunklineError with INVALID_REQUEST if this question did not give the token.
    """
    if not token:
        return ""
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        last = raw[_DIGEST_BYTES:].decode()
    except ValueError:
        raise _refused() from None
    # Decoding passes over what it does not know; what we gave is told by giving it again.
    if write_token(last, question) != token:
        raise _refused()
    return last


def _refused() -> TrunklineError:
    return invalid("page_token", "is not one that this list gave; leave it empty to begin anew")


def _digest(question: tuple[object, ...], last: str) -> bytes:
    text = repr((question, last))
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest()
