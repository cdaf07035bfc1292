"""Finds personal data in text: all rules, in time linear in the text.

The text is walked once for each thing that candidates have about them - digits, colons, @ -
and rules are tried only there. For the few that have none of these, and for those that words
must speak for, a search for the literal decides whether and where the rule is tried.
"""

import re
from collections.abc import Iterable, Iterator

from trunkline_server.privacy.rule import BEFORE, Lead, Rule, Span
from trunkline_server.privacy.rules import RULES

_DIGITS = re.compile(r"[0-9]++")
# From the start of a number: seven digits with little between them, or four with dots.
_LONG = re.compile(r"[0-9](?:[ ./()-]{0,2}[0-9]){6}|[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_COLONS = re.compile(r"[:-][0-9A-Fa-f]{0,4}[:-]")
_HEX = frozenset("0123456789abcdefABCDEF")
_LOCAL = "".join(chr(code) for code in range(128) if chr(code).isalnum()) + "._+-"
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
# What keys are made of; a key has a digit among its first _HEAD characters, is not short, and
# is no longer run of characters than _TOKEN takes at once.
_IN_TOKENS = "".join(chr(code) for code in range(128) if chr(code).isalnum()) + "_-"
_JOINED = _LETTERS | {"_", "-"}
_HEAD = 100
_TOKEN = re.compile(r"[A-Za-z0-9_-]{20,}+")
# How far after its word the value of a rule may end.
_REACH = BEFORE + 48


class Detector:
    """Some rules, sorted by how their candidates are found."""

    def __init__(self, rules: Iterable[Rule] = RULES) -> None:
        by_lead: dict[Lead, list[Rule]] = {lead: [] for lead in Lead}
        for rule in rules:
            by_lead[rule.lead].append(rule)
        self._numbers = tuple(by_lead[Lead.NUMBER])
        self._words = tuple(by_lead[Lead.WORD])
        self._colons = tuple(by_lead[Lead.COLON])
        self._ats = tuple(by_lead[Lead.AT])
        self._tokens = tuple(by_lead[Lead.RUN])
        self._searched = tuple(by_lead[Lead.SEARCH])
        self._in_context = tuple(by_lead[Lead.CONTEXT])

    def spans(self, text: str) -> list[Span]:
        """What is found, by place, without overlaps."""
        found: list[tuple[Span, int]] = []
        found.extend(self._by_digits(text))
        if self._colons and (":" in text or "-" in text):
            found.extend(self._by_colons(text))
        if self._ats and "@" in text:
            found.extend(self._by_ats(text))
        found.extend(self._by_search(text))
        if len(found) < 2:
            return [span for span, _ in found]
        return _without_overlaps(found)

    def _by_digits(self, text: str) -> Iterator[tuple[Span, int]]:
        token_end, size, last_end, last_size = 0, len(text), -2, 0
        for run in _DIGITS.finditer(text):
            start, end = run.span()
            # Of digits that stand alone in a row, only the first may begin a number.
            row = end - start == last_size == 1 and start - last_end == 1
            last_end, last_size = end, end - start
            before = text[start - 1] if start else " "
            if start >= token_end and (before in _JOINED or (end < size and text[end] in _JOINED)):
                head = text[max(0, start - _HEAD) : start]
                begin = start - len(head) + len(head.rstrip(_IN_TOKENS))
                token = _TOKEN.match(text, begin)
                if token is not None:
                    token_end = token.end()
                    yield from _tried(self._tokens, text, begin)
            if before in _LETTERS:
                # Such as GB82; the space of "AB 12 34 56 C" is seen to below.
                if end - start > 1 and start > 1 and text[start - 2] in _LETTERS:
                    yield from _tried(self._words, text, start - 2)
                continue
            if before == " " and end - start == 2 and _two_letters(text, start - 3):
                yield from _tried(self._words, text, start - 3)
            if before in ".-" and text[max(0, start - 2)].isdecimal():
                continue  # The middle of a number.
            if not row and _LONG.match(text, start):
                yield from self._at_number(text, start, before)

    def _at_number(self, text: str, start: int, before: str) -> Iterator[tuple[Span, int]]:
        if before == "+":
            sign = 2 if text[max(0, start - 2) : start] == "(+" else 1
            yield from _tried(self._numbers, text, start - sign)
            return
        if before == "(":
            yield from _tried(self._numbers, text, start - 1)
        yield from _tried(self._numbers, text, start)

    def _by_colons(self, text: str) -> Iterator[tuple[Span, int]]:
        done = 0
        for match in _COLONS.finditer(text):
            start = match.start()
            if start < done:
                continue
            while start > 0 and match.start() - start < 4 and text[start - 1] in _HEX:
                start -= 1
            for span, weight in _tried(self._colons, text, start):
                done = max(done, span.end)
                yield span, weight

    def _by_ats(self, text: str) -> Iterator[tuple[Span, int]]:
        at = text.find("@")
        while at >= 0:
            # One more than may stand there: what is longer is no address.
            local = text[max(0, at - 65) : at]
            length = len(local) - len(local.rstrip(_LOCAL))
            if 0 < length <= 64:
                dots = len(local[-length:]) - len(local[-length:].lstrip(".-"))
                yield from _tried(self._ats, text, at - length + dots)
            at = text.find("@", at + 1)

    def _by_search(self, text: str) -> Iterator[tuple[Span, int]]:
        lower = _lower(text)
        for rule in self._searched:
            for piece in rule.needs:
                if piece in lower:
                    break
            else:
                continue
            for match in rule.pattern.finditer(text):
                if rule.accept(match):
                    yield _span(rule, match), rule.weight
        for rule in self._in_context:
            for piece in rule.needs:
                yield from _near(rule, piece, text, lower)


def _near(rule: Rule, piece: str, text: str, lower: str) -> Iterator[tuple[Span, int]]:
    """What a rule finds shortly after each place of a piece; no place is searched twice."""
    place = lower.find(piece)
    begin = 0
    while place >= 0:
        end = place + _REACH
        for match in rule.pattern.finditer(text, max(begin, place), end):
            if rule.accept(match):
                begin = match.end()
                yield _span(rule, match), rule.weight
        begin = max(begin, end - BEFORE)
        place = lower.find(piece, place + len(piece))


def _lower(text: str) -> str:
    """The text in lower case, of the same length: there are letters that become two."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(small if len(small := char.lower()) == 1 else char for char in text)


def _two_letters(text: str, start: int) -> bool:
    return start >= 0 and text[start] in _LETTERS and text[start + 1] in _LETTERS


def _tried(rules: tuple[Rule, ...], text: str, start: int) -> Iterator[tuple[Span, int]]:
    """What rules find at one place. A word is not begun in its middle."""
    if start and (text[start - 1].isalnum() or text[start - 1] == "_"):
        return
    for rule in rules:
        match = rule.pattern.match(text, start)
        if match is not None and rule.accept(match):
            yield _span(rule, match), rule.weight


def _span(rule: Rule, match: re.Match[str]) -> Span:
    group: int | str = "value" if "value" in rule.pattern.groupindex else 0
    return Span(match.start(group), match.end(group), rule.kind)


def _without_overlaps(found: list[tuple[Span, int]]) -> list[Span]:
    """The weightier of each two that overlap, then the longer, then the earlier."""
    found.sort(key=lambda item: (item[0].start, -item[1], -item[0].end))
    kept: list[tuple[Span, int]] = []
    for span, weight in found:
        while kept and kept[-1][0].end > span.start:
            last, standing = kept[-1]
            if (standing, last.end - last.start) >= (weight, span.end - span.start):
                break
            kept.pop()
        else:
            kept.append((span, weight))
    return [span for span, _ in kept]


def merged(surer: Iterable[Span], others: Iterable[Span]) -> list[Span]:
    """Two lists of finds as one; where they overlap, the first list's stand."""
    return _without_overlaps([(span, 1) for span in surer] + [(span, 0) for span in others])
