"""Prints how well personal data is found: precision and recall per type on labelled text, false
alarms on text without any, and microseconds per KB.

    python -m tests.perf.pii_figures

A found span is right when a labelled one of its type has the same ends; where the labels draw
the border of a telephone number otherwise (an extension, a leading bracket), overlapping by
four fifths of both will do, and both figures are printed.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.support.corpus import corpus_dir, read_jsonl
from trunkline_server.privacy.detect import Detector
from trunkline_server.privacy.rule import Span

# The corpus's types, and ours. It has no births, but dates of which some are told as births.
CLAIMED = {
    "EMAIL_ADDRESS": "EMAIL_ADDRESS",
    "CREDIT_CARD": "CREDIT_CARD",
    "IBAN_CODE": "IBAN_CODE",
    "US_SSN": "US_SSN",
    "IP_ADDRESS": "IP_ADDRESS",
    "PHONE_NUMBER": "PHONE_NUMBER",
    "US_DRIVER_LICENSE": "DRIVER_LICENSE",
}
# What a labelled date must have before it to be a date of birth.
_BIRTH = ("born on ", "date of birth. it's ", "dob: ")


@dataclass
class Tally:
    """Labelled, found, right to the character, right by overlap."""

    labelled: int = 0
    found: int = 0
    exact: int = 0
    near: int = 0

    def precision(self, right: int) -> float:
        return right / self.found if self.found else 1.0

    def recall(self, right: int) -> float:
        return right / self.labelled if self.labelled else 1.0


def labelled_figures() -> dict[str, Tally]:
    """The tallies by our type."""
    detector = Detector()
    tallies = {kind: Tally() for kind in (*CLAIMED.values(), "DATE_OF_BIRTH")}
    for record in read_jsonl(corpus_dir() / "pii" / "presidio_synth_v2.jsonl.gz"):
        text = record["text"]
        labels = list(_labels(text, record["spans"]))
        for label in labels:
            tallies[label.kind].labelled += 1
        for span in detector.spans(text):
            tally = tallies.setdefault(span.kind, Tally())
            tally.found += 1
            tally.exact += span in labels
            tally.near += any(_near(span, label) for label in labels)
    return tallies


def _labels(text: str, spans: Iterable[dict[str, object]]) -> Iterator[Span]:
    for span in spans:
        start, end = int(str(span["s"])), int(str(span["e"]))
        kind = CLAIMED.get(str(span["t"]))
        if span["t"] == "DATE_TIME" and text[:start].lower().endswith(_BIRTH):
            kind = "DATE_OF_BIRTH"
        if kind:
            yield Span(start, end, kind)


def _near(found: Span, label: Span) -> bool:
    shared = min(found.end, label.end) - max(found.start, label.start)
    longest = max(found.end - found.start, label.end - label.start)
    return found.kind == label.kind and shared >= 0.8 * longest


# Recorded prompts and questions, in which nobody's data is known to be: name, file, field.
CLEAN = (
    ("zeroeval", "routing/zeroeval.jsonl.gz", "question"),
    ("MMLU", "routing/routellm_mmlu.jsonl.gz", "prompt"),
    ("llmrouter", "routing/llmrouter_9models.jsonl.gz", "question"),
    ("banking77", "dupes/banking77.jsonl.gz", "text"),
    ("clinc150", "dupes/clinc150.jsonl.gz", "text"),
)


def clean_texts(*names: str) -> Iterator[str]:
    """The clean texts of the sources of these names; of all, if none is named."""
    folder = corpus_dir()
    for name, file, field in CLEAN:
        if not names or name in names:
            for record in read_jsonl(folder / file):
                yield record[field]


@dataclass
class Alarms:
    """False alarms on clean text: words read, and what was found as (type, text)."""

    words: int
    found: list[tuple[str, str]]

    @property
    def per_10_000_words(self) -> float:
        return len(self.found) / self.words * 10_000


def false_alarms(*names: str) -> Alarms:
    """What is found where nothing should be, in the sources of these names or in all."""
    detector, words, found = Detector(), 0, []
    for text in clean_texts(*names):
        words += len(text.split())
        found += [(kind, text[start:end]) for start, end, kind in detector.spans(text)]
    return Alarms(words, found)


def microseconds_per_kb(texts: Iterable[str]) -> float:
    """The least of five readings of all texts, in characters."""
    listed = list(texts)
    detector = Detector()
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        for text in listed:
            detector.spans(text)
        best = min(best, time.perf_counter() - started)
    return best * 1e6 / (sum(map(len, listed)) / 1024)


def main() -> None:
    """Prints the tables."""
    out = sys.stdout
    out.write("type             labelled found precision recall  (by overlap)\n")
    for kind, tally in labelled_figures().items():
        out.write(
            f"{kind:16} {tally.labelled:8} {tally.found:5}"
            f" {tally.precision(tally.exact):9.3f} {tally.recall(tally.exact):6.3f}"
            f"  ({tally.precision(tally.near):.3f} {tally.recall(tally.near):.3f})\n"
        )
    out.write("\nclean text       words  alarms per 10,000 words\n")
    for name, *_ in CLEAN:
        source = false_alarms(name)
        out.write(f"{name:12} {source.words:9,} {len(source.found):7}")
        out.write(f" {source.per_10_000_words:.3f}\n")
    alarms = false_alarms()
    out.write(f"all          {alarms.words:9,} {len(alarms.found):7}")
    out.write(f" {alarms.per_10_000_words:.3f}\n\n")
    for kind, text in alarms.found[:40]:
        out.write(f"  {kind}: {text!r}\n")
    clean = list(clean_texts())[:4000]
    marked = [r["text"] for r in read_jsonl(corpus_dir() / "pii" / "presidio_synth_v2.jsonl.gz")]
    out.write(f"us per KB, short prompts: {microseconds_per_kb(clean):.1f}\n")
    out.write(f"us per KB, 16 KiB prompts: {microseconds_per_kb(_joined(clean)):.1f}\n")
    out.write(
        f"us per KB, text full of personal data: {microseconds_per_kb(_joined(marked)):.1f}\n"
    )


def _joined(texts: Iterable[str]) -> Iterator[str]:
    whole = "\n".join(texts)
    return (whole[start : start + 16_384] for start in range(0, len(whole), 16_384))


if __name__ == "__main__":
    main()
