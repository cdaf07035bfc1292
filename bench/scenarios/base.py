"""What a scenario is, and what it gives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.common.compare import Measured
from bench.common.stats import Figure, ratio
from bench.report.svg import Plot
from bench.subjects import Bench


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the report; the first column is text, the others are figures."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What a scenario found. `figures` are what targets and the JSON are made from."""

    tables: Sequence[Table]
    figures: Mapping[str, Any]
    plots: Sequence[Plot] = ()
    notes: Sequence[str] = ()


class Skipped(Exception):  # noqa: N818 - it is no error: the reason is reported
    """The scenario cannot run here; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One named scenario: what is configured and sent, and what must come of it."""

    name: str
    title: str
    config: str
    payload: str
    expected: str
    run: Callable[[Bench], Result]
    quick: bool = False


def comparison(
    measured: Mapping[str, Measured], bases: Sequence[str], unit: str = "call"
) -> tuple[Table, dict[str, Any]]:
    """The usual table: CPU, ratios to the bases, rate and percentiles of each case."""
    columns = [
        "case",
        f"CPU µs/{unit}",
        *(f"÷ {base}" for base in bases),
        "calls/s",
        "p50 ms",
        "p99 ms",
        "RSS MB",
    ]
    rows = []
    figures: dict[str, Any] = {}
    for name, each in measured.items():
        ratios = {base: ratio(each.cpu_us, measured[base].cpu_us) for base in bases}
        rows.append(
            [
                name,
                each.cpu_us.show(1 if each.cpu_us.median < 50 else 0),
                *(part.show(2) for part in ratios.values()),
                each.per_second.show(),
                _latency(each, "p50"),
                _latency(each, "p99"),
                each.resident_mb.show(),
            ]
        )
        figures[name] = each.as_json() | {
            "ratios": {base: part.as_json() for base, part in ratios.items()}
        }
    return Table(columns, rows), figures


def _latency(measured: Measured, name: str) -> str:
    found: Figure | None = measured.latency.get(name)
    return "" if found is None else found.show(2)
