"""Presidio's analyzer, out of process: names, places and whatever else patterns cannot find.

After Presidio's API reference (microsoft.github.io/presidio/api-docs): POST /analyze with
`text`, `language`, `score_threshold` and `entities` gives a list of `entity_type`, `start`,
`end` and `score`, places in characters.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from trunkline import v1
from trunkline_server.clock import Clock
from trunkline_server.errors import TrunklineError
from trunkline_server.privacy.detect import merged
from trunkline_server.privacy.mask import Find
from trunkline_server.privacy.ports import AnalyzerWatch, Post
from trunkline_server.privacy.rule import Span

# Texts of more characters may take the analyzer longer than its time.
_TELLING = 32_768


@dataclass(frozen=True, slots=True)
class PresidioSettings:
    """`timeout` is for all texts of one call together, in seconds.

    `on_outage` says what holds while the analyzer does not answer: `inline` goes on with the
    patterns of this process, `deny` refuses what would have been analysed. For `rest` seconds
    after a failure it is not asked. `entities` empty asks for all that it knows.
    """

    url: str
    timeout: float = 0.5
    on_outage: Literal["inline", "deny"] = "deny"
    language: str = "en"
    least_score: float = 0.5
    entities: tuple[str, ...] = ()
    rest: float = 5.0
    most_at_once: int = 8


class Presidio:
    """Finds by the analyzer and by the patterns here; where both find, the patterns stand."""

    def __init__(
        self,
        settings: PresidioSettings,
        post: Post,
        clock: Clock,
        watch: AnalyzerWatch,
        inline: Find,
    ) -> None:
        """`inline` finds by the patterns here."""
        self._settings = settings
        self._post = post
        self._clock = clock
        self._watch = watch
        self._inline = inline
        self._url = settings.url.rstrip("/") + "/analyze"
        # None while the analyzer is well, else when it may be asked again.
        self._resting_until: float | None = None

    async def finder(self, texts: Iterable[str]) -> Find:
        """A finder that knows these texts; see request.texts_of. Others are searched by pattern.

        Raises TrunklineError with SERVICE_UNAVAILABLE when the analyzer is away and the mode is
        `deny`.
        """
        found = await self._analysed([text for text in texts if text and not text.isspace()])

        def find(text: str) -> Sequence[Span]:
            return merged(self._inline(text), found.get(text, ()))

        return find

    async def _analysed(self, texts: list[str]) -> Mapping[str, list[Span]]:
        if not texts:
            return {}
        resting = self._resting_until
        if resting is not None and self._clock.monotonic() < resting:
            return self._away()
        gate = asyncio.Semaphore(self._settings.most_at_once)
        tasks = [asyncio.create_task(self._ask(text, gate)) for text in texts]
        try:
            async with asyncio.timeout(self._settings.timeout):
                answers = await asyncio.gather(*tasks)
        except (TimeoutError, TrunklineError) as error:
            if isinstance(error, TimeoutError) and sum(map(len, texts)) > _TELLING:
                # One long prompt says nothing of the analyzer, and must not deny the others.
                return self._away()
            is_news = self._resting_until is None
            self._resting_until = self._clock.monotonic() + self._settings.rest
            if is_news:
                self._watch.analyzer_outage(True, self._settings.on_outage)
            return self._away()
        finally:
            # Of those that one failure has made useless; the others are done.
            for task in tasks:
                task.cancel()
        if resting is not None and self._resting_until is not None:
            self._resting_until = None
            self._watch.analyzer_outage(False, self._settings.on_outage)
        return dict(zip(texts, answers, strict=True))

    def _away(self) -> Mapping[str, list[Span]]:
        if self._settings.on_outage == "deny":
            raise TrunklineError(
                v1.ERROR_REASON_SERVICE_UNAVAILABLE,
                "the analyzer of personal data is away, and nothing is sent on unexamined",
            )
        return {}

    async def _ask(self, text: str, gate: asyncio.Semaphore) -> list[Span]:
        settings = self._settings
        question: dict[str, Any] = {
            "text": text,
            "language": settings.language,
            "score_threshold": settings.least_score,
        }
        if settings.entities:
            question["entities"] = settings.entities
        async with gate:
            status, body = await self._post(self._url, orjson.dumps(question), settings.timeout)
        if status != 200:
            raise _bad(f"HTTP {status}")
        return _spans(body, len(text), settings.least_score)


def _spans(body: bytes, size: int, least_score: float) -> list[Span]:
    try:
        return [
            Span(item["start"], item["end"], str(item["entity_type"]))
            for item in orjson.loads(body)
            if item["score"] >= least_score and 0 <= item["start"] < item["end"] <= size
        ]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise _bad("an answer of another shape") from None


def _bad(what: str) -> TrunklineError:
    return TrunklineError(
        v1.ERROR_REASON_SERVICE_UNAVAILABLE, f"the analyzer of personal data gave {what}"
    )
