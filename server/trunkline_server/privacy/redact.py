"""Redaction of text that is logged or stored: what is found is replaced by its type."""

from collections.abc import Callable, Iterable

from trunkline_server.privacy.detect import Detector
from trunkline_server.privacy.rule import Span
from trunkline_server.privacy.rules import RULES

# What operators need to find the machine that they are told about.
_OF_MACHINES = frozenset({"IP_ADDRESS", "MAC_ADDRESS"})

_DETECTOR = Detector()
_BUT_MACHINES = Detector(rule for rule in RULES if rule.kind not in _OF_MACHINES)


def redact(text: str) -> str:
    """The text with every piece of personal data and every key replaced by `[TYPE]`."""
    return _redacted(_DETECTOR, text)


def redact_but_machines(text: str) -> str:
    """As `redact`, for text of the router's own: addresses of machines stay."""
    return _redacted(_BUT_MACHINES, text)


def _redacted(detector: Detector, text: str) -> str:
    spans = detector.spans(text)
    return replaced(text, spans, lambda span: f"[{span.kind}]") if spans else text


def replaced(text: str, spans: Iterable[Span], by: Callable[[Span], str]) -> str:
    """The text with each span replaced; spans are in order and do not overlap."""
    pieces: list[str] = []
    end = 0
    for span in spans:
        pieces += (text[end : span.start], by(span))
        end = span.end
    pieces.append(text[end:])
    return "".join(pieces)
