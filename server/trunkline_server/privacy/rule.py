"""What a rule is: how one type of personal data is recognised."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Span(NamedTuple):
    """A piece of a text, in characters, and the type of what stands there."""

    start: int
    end: int
    kind: str


class Lead(Enum):
    """Where a rule's pattern is tried; see detect.py."""

    NUMBER = "number"  # Where a number begins, with the + or ( before it.
    WORD = "word"  # Where a word begins that goes on with two digits after two letters.
    COLON = "colon"  # Where hex digits begin that a colon or hyphen ends.
    AT = "at"  # Where the word before an @ begins.
    RUN = "run"  # Where a run of letters, digits, _ and - begins that mixes them.
    SEARCH = "search"  # Anywhere in a text that holds one of `needs`.
    CONTEXT = "context"  # Shortly after one of `needs`.


@dataclass(frozen=True, slots=True)
class Rule:
    """One type of personal data.

    `pattern` takes time linear in the text over all places that it is tried at: what it
    repeats is bounded, or possessive and tried once per run. A group named `value`, where
    there is one, is the span. `accept` decides on a match: check digits, reserved ranges,
    words near it. The pieces that `needs` lists are in lower case, as is the text that they are
    looked for in; a rule that is searched for begins with a literal. Of overlapping spans the one
    with the higher `weight` stands, then the longer one.
    """

    kind: str
    lead: Lead
    weight: int
    pattern: re.Pattern[str]
    accept: Callable[[re.Match[str]], bool]
    needs: tuple[str, ...] = ()


# How many characters before and after a match may speak for it.
BEFORE, AFTER = 48, 12


class Words:
    """Words that may speak for a match. `pieces`, in lower case, are what at least one of them
    holds; looking for these first is what makes most matches cheap."""

    def __init__(self, pattern: str, pieces: tuple[str, ...]) -> None:
        self._pattern = re.compile(pattern, re.IGNORECASE)
        self._pieces = pieces

    def before(self, match: re.Match[str]) -> bool:
        """Whether one of the words stands shortly before a match."""
        start = match.start()
        near = match.string[max(0, start - BEFORE) : start]
        small = near.lower()
        for piece in self._pieces:
            if piece in small:
                return self._pattern.search(near) is not None
        return False


def told_after(match: re.Match[str], words: re.Pattern[str]) -> bool:
    """Whether one of the words stands right after a match."""
    return words.match(match.string, match.end(), match.end() + AFTER) is not None


def always(_match: re.Match[str]) -> bool:
    """Accepts every match: the pattern says it all."""
    return True
