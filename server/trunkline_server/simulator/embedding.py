"""Vectors for texts: deterministic, of length one, and nearer the more words texts share."""

import hashlib
import math
import re
from functools import lru_cache

DIMENSIONS = 256
_SLOTS_PER_WORD = 4
_WORDS = re.compile(r"\w+|[^\w\s]")


@lru_cache(maxsize=16384)
def _slots(word: str) -> tuple[tuple[int, float], ...]:
    """Where in the vector the word counts, and with which sign."""
    digest = hashlib.blake2b(word.encode(), digest_size=3 * _SLOTS_PER_WORD).digest()
    return tuple(
        (int.from_bytes(digest[i : i + 2], "big"), 1.0 if digest[i + 2] & 1 else -1.0)
        for i in range(0, len(digest), 3)
    )


def embed(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """The text's vector of that many dimensions."""
    vector = [0.0] * dimensions
    # A word of its own for every text keeps texts without any word from having no direction.
    for word in ("", *_WORDS.findall(text.lower())):
        for slot, sign in _slots(word):
            vector[slot % dimensions] += sign
    length = math.sqrt(sum(value * value for value in vector))
    if length == 0.0:
        vector[0] = length = 1.0
    return [value / length for value in vector]
