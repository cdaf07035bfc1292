"""Degradation: what callers notice of each outage during load, and that its mode is told."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg  # type: ignore[import-untyped] # It ships no marker of its types.
from tests.support.process import RouterProcess

from bench.proofs.base import Result, Stage, Table
from bench.proofs.books import Tally, events_since, judge, missing
from bench.proofs.faults import (
    DISK_FULL,
    POSTGRES_DEAD,
    POSTGRES_FROZEN,
    REDIS_DEAD,
    REDIS_SLOW,
    Fault,
    surroundings,
)
from bench.proofs.steady import Steady, Window

_RATE = 60.0
# How long each part of a load lasts, times the scale. Seconds.
_BEFORE, _DURING, _AFTER = 6.0, 8.0, 4.0
_WARM = 2.0
# What becomes of the calls on the way is looked at apart. Seconds.
_ON_THE_WAY, _UNDER_WAY = 1.0, 0.25
_SETTLE = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One fault under one declared mode."""

    fault: Fault
    mode: str
    # The log lines that tell of the mode's beginning and end.
    enters: str
    leaves: str
    # A metric that tells of it, and what it is then; at other times it is 0.
    metric: str
    # Times the usual length.
    longer: float = 1.0
    # Whether calls fail while it lasts.
    denies: bool = False
    sections: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def _of_redis(fault: Fault, mode: str) -> Case:
    return Case(
        fault=fault,
        mode=mode,
        enters="shared counters are away",
        leaves="shared counters are back",
        metric="trunkline_quota_outage",
        denies=mode == "deny",
        sections={"state": {"limits_on_outage": mode, "budgets_on_outage": mode}},
    )


def _of_postgres(fault: Fault, longer: float = 1.0) -> Case:
    return Case(
        fault=fault,
        mode="the journal waits",
        enters="ledger database is away; events wait in the journal",
        leaves="ledger database is back",
        metric="trunkline_ledger_away",
        longer=longer,
    )


def _of_disk(mode: str) -> Case:
    return Case(
        fault=DISK_FULL,
        mode=mode,
        enters="ledger cannot be written",
        leaves="ledger is written again",
        metric="trunkline_ledger_blocked",
        denies=mode == "deny",
        sections={"ledger": {"on_full": mode}},
    )


_MODES = ("local", "deny", "allow")
CASES = (
    *(_of_redis(fault, mode) for fault in (REDIS_DEAD, REDIS_SLOW) for mode in _MODES),
    _of_postgres(POSTGRES_DEAD),
    # Three statements in a row have to go unanswered, for five seconds each.
    _of_postgres(POSTGRES_FROZEN, 3.0),
    _of_disk("deny"),
    _of_disk("allow"),
)


@dataclass(slots=True)
class _Found:
    """What one case showed. Times are seconds, `entered` from the fault, `left` from its end."""

    case: Case
    before: Window
    entering: Window
    during: Window
    after: Window
    entered: float | None
    left: float | None
    metric: tuple[float, float]
    books: Tally

    @property
    def broken(self) -> list[str]:
        """The promises that did not hold."""
        name = f"{self.case.fault.name}, {self.case.mode}"
        wrong = [f"{name}: {each}" for each in self.books.broken]
        if self.entered is None:
            wrong.append(f"{name}: the log did not say {self.case.enters!r}")
        if self.left is None:
            wrong.append(f"{name}: the log did not say {self.case.leaves!r}")
        if self.metric[0] <= 0 or self.metric[1] != 0:
            wrong.append(f"{name}: {self.case.metric} was {self.metric[0]}, then {self.metric[1]}")
        for word, window in (("before", self.before), ("after", self.after)):
            if window.failed:
                wrong.append(f"{name}: {window.failed} calls failed {word}: {window.reasons()}")
        if self.case.denies:
            if set(self.during.reasons()) - {"UNAVAILABLE"}:
                wrong.append(f"{name}: denied otherwise than declared: {self.during.reasons()}")
            if self.during.error_rate < 1.0:
                wrong.append(f"{name}: {self.during.error_rate:.1%} were denied, not all")
        elif self.entering.failed or self.during.failed:
            reasons = self.entering.reasons() | self.during.reasons()
            wrong.append(f"{name}: calls failed: {reasons}")
        return wrong


async def run(stage: Stage) -> Result:
    """As the module says."""
    return await carry_out(stage, CASES)


async def carry_out(stage: Stage, cases: Sequence[Case]) -> Result:
    """The proof with these cases alone."""
    found = []
    for number, case in enumerate(cases):
        print(f"  {case.fault.name}, {case.mode}", flush=True)
        found.append(await _case(stage, number, case))
    return _result(found)


async def _case(stage: Stage, number: int, case: Case) -> _Found:
    scale = stage.options.scale
    name = f"degradation-{number}"
    sections = {key: dict(value) for key, value in case.sections.items()}
    async with (
        surroundings(stage, name, case.fault, **sections) as around,
        around.world.router() as router,
    ):
        start_us = round(time.time() * 1e6)
        load = Steady(name, router.address, _RATE, stage.rng(name))
        load.start()
        await asyncio.sleep(_WARM)
        warm = time.monotonic()
        await asyncio.sleep(_BEFORE * scale)
        struck = time.monotonic()
        watching = asyncio.create_task(_seen(router, case.enters, struck))
        await case.fault.strike(around)
        await asyncio.sleep(_DURING * case.longer * scale)
        at_worst = await metric(router, case.metric)
        mended = time.monotonic()
        entered = await _within(watching, 0.1)
        watching = asyncio.create_task(_seen(router, case.leaves, mended))
        await case.fault.mend(around)
        left = await _within(watching, _SETTLE)
        back = time.monotonic()
        await asyncio.sleep(_AFTER * scale)
        await load.stop()
        books = await _books(around.world.database, start_us, load)
        in_the_end = await _level(router, case.metric)
        way = struck + _ON_THE_WAY
        return _Found(
            case=case,
            # What was under way at that moment met the fault.
            before=load.window(warm, struck - _UNDER_WAY),
            entering=load.window(struck - _UNDER_WAY, way),
            during=load.window(way, mended),
            after=load.window(back, time.monotonic()),
            entered=entered,
            left=left,
            metric=(at_worst, in_the_end),
            books=books,
        )


async def _seen(router: RouterProcess, event: str, since: float) -> float:
    """Seconds from a moment until the router logs a line once more."""
    lines = sum(row.get("event") == event for row in router.log)
    await router.logged(event, lines + 1)
    return time.monotonic() - since


async def _within(watching: "asyncio.Task[float]", seconds: float) -> float | None:
    """What is watched for, or None if it does not come in time."""
    done, _ = await asyncio.wait([watching], timeout=seconds)
    if not done:
        watching.cancel()
    return None if not done or watching.exception() is not None else watching.result()


async def metric(router: RouterProcess, name: str) -> float:
    """A metric without labels; 0 if there is none."""
    _, text = await router.get("/metrics")
    for line in text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.rpartition(" ")[2])
    return 0.0


async def _level(router: RouterProcess, name: str) -> float:
    """A metric once it is 0 again, or what it is when that does not come."""
    deadline = time.monotonic() + _SETTLE
    while True:
        found = await metric(router, name)
        if not found or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.1)


async def _books(database: str, start_us: int, load: Steady) -> Tally:
    """The books beside what callers were told, once they are whole."""
    told = [each.told for each in load.samples]
    deadline = time.monotonic() + _SETTLE
    while True:
        try:
            events = await events_since(database, start_us)
        except (OSError, asyncpg.PostgresError, TimeoutError):
            events = []
        if not missing(told, events, died=False) or time.monotonic() > deadline:
            return judge(told, events, died=False)
        await asyncio.sleep(0.1)


def _result(found: Sequence[_Found]) -> Result:
    columns = [
        *("fault, declared mode", "calls", "errors before", "on the way", "during", "after"),
        *("p50 before", "during", "p99 before", "on the way", "during", "added p99", "longest"),
        *("entered", "left"),
    ]
    rows = []
    figures: dict[str, Any] = {}
    broken: list[str] = []
    for each in found:
        name = f"{each.case.fault.name}, {each.case.mode}"
        parts = (each.before, each.entering, each.during, each.after)
        p99 = [window.percentile(0.99) for window in parts]
        during = each.during.failed < len(each.during.samples)
        rows.append(
            [
                name,
                f"{each.books.calls:,}",
                *(f"{window.error_rate:.1%}" for window in parts),
                f"{each.before.percentile(0.5):.1f} ms",
                f"{each.during.percentile(0.5):.1f} ms" if during else "",
                f"{p99[0]:.1f} ms",
                f"{p99[1]:.1f} ms",
                f"{p99[2]:.1f} ms" if during else "",
                f"{p99[2] - p99[0]:+.1f} ms" if during else "",
                f"{max(window.longest for window in parts):.0f} ms",
                _seconds(each.entered),
                _seconds(each.left),
            ]
        )
        figures[name] = {
            "calls": each.books.calls,
            "error_rate": [window.error_rate for window in parts],
            "reasons": each.entering.reasons() | each.during.reasons(),
            "p50_ms": [window.percentile(0.5) for window in parts],
            "p99_ms": p99,
            "longest_ms": [window.longest for window in parts],
            "entered_seconds": each.entered,
            "left_seconds": each.left,
        }
        broken += each.broken
    note = (
        f"{_RATE:g} calls a second, one in five a stream; latencies are those of whole answers,"
        " from the moment a call was due. On the way: the first second after the fault. Entered:"
        " from the fault to the log line that names the mode; left: from its end likewise."
    )
    return Result([Table(columns, rows)], figures, broken, [note])


def _seconds(found: float | None) -> str:
    return "never" if found is None else f"{found:.2f} s"
