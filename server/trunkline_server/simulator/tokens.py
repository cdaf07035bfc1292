"""A token count that every dialect of the simulator shares.

It is an approximation and makes no claim on any vendor's tokeniser: four characters are one
token, which is near the mark for English prose. It is deterministic, costs nothing, and adds
up: the counts of the pieces that a text is cut into at token boundaries sum to its own.
"""

from collections.abc import Iterator

CHARACTERS_PER_TOKEN = 4

# What a message costs beyond its text, and what a picture, a recording or a document costs.
MESSAGE_TOKENS = 3
MEDIA_TOKENS = 258


def count(text: str) -> int:
    """How many tokens the text has; 0 for the empty text."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def cut(text: str, limit: int) -> str:
    """The text's first `limit` tokens."""
    return text[: limit * CHARACTERS_PER_TOKEN]


def pieces(text: str, tokens: int) -> Iterator[str]:
    """The text in pieces of `tokens` tokens each, the last one possibly shorter."""
    size = tokens * CHARACTERS_PER_TOKEN
    for start in range(0, len(text), size):
        yield text[start : start + size]


def fill(text: str, tokens: int) -> str:
    """A text of exactly `tokens` tokens that begins as the given one and repeats it."""
    size = tokens * CHARACTERS_PER_TOKEN
    if not text or size == 0:
        return ""
    unit = text + " "
    return (unit * (size // len(unit) + 1))[:size]
