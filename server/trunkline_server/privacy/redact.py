"""Redaction of text that is logged or stored: what is found is replaced by its type."""

from collections.abc import Callable, Iterable

from trunkline_server.privacy.detect import Detector
from trunkline_server.privacy.rule import Span

_DETECTOR = Detector()


def redact(text: str) -> str:
    """The text with every piece of personal data and every key replaced by `[TYPE]`."""
    spans = _DETECTOR.spans(text)
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
