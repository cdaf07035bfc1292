"""The table over all providers: what every recorded exchange, and every fixture, came to.

    python -m tests.corpus.table

Each dialect's test contributes by a function `outcomes`; what no dialect claims is listed with
the reason why, or as unexplained.
"""

import re
import sys
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from tests.corpus.outcome import Outcome
from tests.support.corpus import corpus_dir, exchanges

# Provider or package, a pattern of the path or of the fixture's name, and why nobody claims it.
_NO_RPC = "text completions of old: the contract has conversations, and no RPC asks for these"
UNCLAIMED: tuple[tuple[str, str, str], ...] = (
    (r".*", r"/(v1/)?completions$", _NO_RPC),
    (r"fixtures openai", r"/completion/", _NO_RPC),
    (r"cohere", r"^/v1/chat$", "Cohere's first version: the router asks the second"),
    (
        r"ollama",
        r"^/api/(chat|generate)$",
        "Ollama's own API: the router speaks its OpenAI-compatible one",
    ),
    (r"fixtures openai", r"-error(\.\d+)?\.json$", "bodies of failures, without their statuses"),
    (r"fixtures google", r"/interactions/", "Google's Interactions API, which is not spoken"),
    (r"fixtures .*", r"/speech-translation/", "live translation over a WebSocket"),
    (r"fixtures .*", r"/skills/", "uploads of skills, which is no call of a model"),
)
# What is read elsewhere than in a corpus test, or not yet. When a dialect begins to claim such
# recordings, the line goes.
_FRAMES = "Converse's events without their frames; the recorded exchanges have the frames too"
_ELSEWHERE = "pictures, transcripts and orders of documents: golden cases hold their shapes"
PENDING: tuple[tuple[str, str, str], ...] = (
    (r"fixtures amazon-bedrock", r"/src/__fixtures__/", _FRAMES),
    (r"fixtures .*", r"/image/|transcription|/reranking/", _ELSEWHERE),
    (r"voyage", r"/rerank$", _ELSEWHERE),
)
COLUMNS = ("exchanges", "lossless", "streamed", "listed", "errors", "mapped", "unclaimed")


def contributors() -> Iterator[str]:
    """The modules of dialects that tell what became of their recordings."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        module = import_module(f"tests.corpus.{path.stem}")
        if hasattr(module, "outcomes"):
            yield module.__name__


def outcomes() -> Iterator[Outcome]:
    """What became of every recording that a dialect claims."""
    for name in contributors():
        yield from import_module(name).outcomes()


def recorded() -> dict[str, tuple[str, str]]:
    """Every exchange and fixture by origin: its provider, and its path or name."""
    found = {
        exchange.origin: (exchange.provider, exchange.path.partition("?")[0])
        for exchange in exchanges()
    }
    with tarfile.open(corpus_dir() / "wire" / "vercel-ai_fixtures.tar.gz") as archive:
        for member in archive:
            if member.isfile() and "__fixtures__" in member.name:
                package = member.name.split("/")[2]
                found[member.name] = (f"fixtures {package}", member.name)
    return found


def why_unclaimed(provider: str, path: str) -> str:
    """The reason why no dialect claims a recording; empty when there is none."""
    for wanted, pattern, reason in (*UNCLAIMED, *PENDING):
        if re.fullmatch(wanted, provider) and re.search(pattern, path):
            return reason
    return ""


class Table:
    """The counts by provider, and every exception by its reason."""

    def __init__(self) -> None:
        self.rows: dict[str, Counter[str]] = defaultdict(Counter)
        self.listed: dict[str, Counter[str]] = defaultdict(Counter)
        self.unexplained: list[str] = []
        self.lost: list[str] = []
        everything = recorded()
        claimed: set[str] = set()
        for outcome in outcomes():
            origin = outcome.origin
            if origin not in everything:
                origin = origin.rpartition("#")[0]
            provider, _ = everything[origin]
            # Several answers of one file count each; so do the dialects that read one answer.
            claimed.add(origin)
            self._add(self.rows[provider], provider, outcome)
        for origin, (provider, path) in everything.items():
            if origin not in claimed:
                self.rows[provider]["unclaimed"] += 1
                reason = why_unclaimed(provider, path)
                if reason:
                    self.listed[reason][provider] += 1
                else:
                    self.unexplained.append(f"{provider} {path}")

    def _add(self, row: Counter[str], provider: str, outcome: Outcome) -> None:
        if outcome.result in {"mapped", "unmapped"}:
            row["errors"] += 1
            row["mapped"] += outcome.result == "mapped"
        else:
            row["exchanges"] += 1
            row["lossless"] += outcome.result == "lossless"
            row["streamed"] += outcome.result == "lossless" and outcome.streamed
            row["listed"] += outcome.result == "listed"
        if outcome.result == "listed":
            self.listed[outcome.note][provider] += 1
        if outcome.result in {"lost", "unmapped"}:
            self.lost.append(outcome.origin)

    def lines(self) -> Iterator[str]:
        """The table as text, then the exceptions."""
        width = max(map(len, self.rows))
        yield f"{'provider':{width}}" + "".join(f"{name:>10}" for name in COLUMNS)
        total: Counter[str] = sum(self.rows.values(), Counter())
        for name, row in [*sorted(self.rows.items()), ("all", total)]:
            yield f"{name:{width}}" + "".join(f"{row[column]:>10}" for column in COLUMNS)
        yield ""
        yield "listed and unclaimed, with the reason:"
        for reason, providers in sorted(self.listed.items()):
            counts = ", ".join(f"{name} {count}" for name, count in sorted(providers.items()))
            yield f"- {reason} ({counts})"
        for origin in self.lost:
            yield f"LOST: {origin}"
        for place, count in sorted(Counter(self.unexplained).items()):
            yield f"UNEXPLAINED: {place} x {count}"


if __name__ == "__main__":
    sys.stdout.write("\n".join(Table().lines()) + "\n")
