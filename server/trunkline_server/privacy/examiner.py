"""How calls are treated: which label holds, what it demands, and what is masked.

Most calls have a label that demands nothing of their text, and get by with one look-up. Text is
searched at once where that takes little, and in a thread where a prompt is long: a search costs
about 0.1 ms a KB, and up to 1.7 ms a KB of the worst text.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

from trunkline import v1
from trunkline_server.privacy.labels import LABEL_KEY, Classification, Fence, Level
from trunkline_server.privacy.mask import Find, MaskMap
from trunkline_server.privacy.payload import PayloadNote, PayloadRules
from trunkline_server.privacy.ports import PrivacyWatch
from trunkline_server.privacy.presidio import Presidio
from trunkline_server.privacy.request import Request, mask_request, texts_of
from trunkline_server.privacy.rule import Span
from trunkline_server.privacy.veil import Veil

# Requests of more bytes are searched in a thread.
MOST_AT_ONCE = 32 * 1024

_EMPTY = MaskMap()


@dataclass(frozen=True, slots=True, eq=False)
class Treatment:
    """What holds for one call. `masked` is what vendors and the cache see in place of the
    request; None: the request itself. `veil` gives the answer back; None: as it is."""

    label: str
    constraints: tuple[Fence, ...]
    may_cache: bool
    may_store_text: bool
    masked: Request | None = None
    veil: Veil | None = None


@dataclass(frozen=True, slots=True)
class ExaminerOptions:
    """`find` finds by the patterns here. `presidio` None: nobody else is asked. `payloads`
    None: they are not logged."""

    find: Find
    presidio: Presidio | None = None
    payloads: PayloadRules | None = None
    most_at_once: int = field(default=MOST_AT_ONCE)


class Examiner:
    """Treats calls by one configuration; an engine.ports.Privacy."""

    def __init__(
        self,
        classification: Classification,
        options: ExaminerOptions,
        watch: PrivacyWatch,
        threads: Executor,
    ) -> None:
        self._classification = classification
        self._options = options
        self._watch = watch
        self._threads = threads
        # By the label that a call names, empty for none: what can be said without the call.
        self._plain = {
            level.label: _plain(level)
            for level in classification.levels
            if not level.examines and not self._logs(level)
        }
        default = self._plain.get(classification.default.label)
        if default is not None:
            self._plain[""] = default

    def treat(self, request: Request, call_id: str) -> Treatment | None:
        """How a call is treated; None if that takes time, see `examine`.

        Raises TrunklineError for a label that is not configured.
        """
        name = request.context.labels.get(LABEL_KEY, "") if request.HasField("context") else ""
        plain = self._plain.get(name)
        if plain is not None:
            return plain
        level = self._classification.level(request.context.labels)
        if level.examines:
            options = self._options
            if options.presidio is not None or request.ByteSize() > options.most_at_once:
                return None
            found = _examined(self._classification, level, request, options.find)
            return self._concluded(level, found, request, call_id)
        return self._concluded(level, _Found(level), request, call_id)

    async def examine(self, request: Request, call_id: str) -> Treatment:
        """As `treat`, for calls that take time. Raises TrunklineError also when the analyzer is
        away and calls are to be denied then."""
        options = self._options
        level = self._classification.level(request.context.labels)
        find = options.find
        is_long = request.ByteSize() > options.most_at_once
        loop = asyncio.get_running_loop()
        if options.presidio is not None:
            if is_long:
                texts = await loop.run_in_executor(self._threads, texts_of, request)
            else:
                texts = texts_of(request)
            find = await options.presidio.finder(texts)
        work = partial(_examined, self._classification, level, request, find)
        found = await loop.run_in_executor(self._threads, work) if is_long else work()
        return self._concluded(level, found, request, call_id)

    def constraints(self, context: v1.CallContext) -> tuple[Fence, ...]:
        """Where a call with this context may go, as far as its label tells. Raises as `treat`."""
        return self._classification.level(context.labels).constraints

    def _logs(self, level: Level) -> bool:
        return self._options.payloads is not None and level.may_store_text

    def _concluded(
        self, asked: Level, found: "_Found", request: Request, call_id: str
    ) -> Treatment:
        level, masked, map_ = found.level, found.masked, found.map
        if level is not asked:
            self._watch.raised(level.label)
        if masked is not None:
            self._watch.masked(level.label)
        note = None
        if self._options.payloads is not None and level.may_store_text:
            note = PayloadNote(self._options.payloads, self._watch, call_id, level.label)
            note.request(masked or request)
        return Treatment(
            label=level.label,
            constraints=level.constraints,
            may_cache=level.may_cache,
            may_store_text=level.may_store_text,
            masked=masked,
            veil=Veil(map_, note) if len(map_) or note is not None else None,
        )


@dataclass(frozen=True, slots=True)
class _Found:
    """What a search came to."""

    level: Level
    masked: Request | None = None
    map: MaskMap = _EMPTY


def _plain(level: Level) -> Treatment:
    return Treatment(level.label, level.constraints, level.may_cache, level.may_store_text)


def _examined(classification: Classification, level: Level, request: Request, find: Find) -> _Found:
    """Searches a request, and masks it if the label, which that may raise, demands it."""
    texts = texts_of(request)
    known: dict[str, Sequence[Span]] = {text: find(text) for text in texts}
    kinds = {span.kind for spans in known.values() for span in spans}
    level = classification.raised(level, kinds)
    if not level.mask or not kinds:
        return _Found(level)

    def remembered(text: str) -> Sequence[Span]:
        spans = known.get(text)
        return find(text) if spans is None else spans

    masked, map_ = mask_request(request, remembered, texts)
    return _Found(level, masked, map_)
