"""The report as Markdown: targets first, then what they rest on."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.report.svg import draw
from bench.report.targets import Verdict
from bench.scenarios.base import Result, Scenario, Table

_INTRODUCTION = """\
CPU per call is user and system time of all of a server's processes, divided by its calls. It is
the primary figure: the load generator shares the machine, so calls per second say as much of the
generator as of the server. All cases of a table are measured in turn, round after round, each
round beginning with another case; figures are medians, with the lowest and highest round in
brackets, and ratios are taken round by round. `make bench` repeats the run; `bench/README.md`
describes the scenarios."""


# Why the figures are as they are, as people read them off profiles; kept by hand.
_READING = Path(__file__).with_name("reading.md")


def filled(text: str) -> str:
    """A paragraph in lines of a document's width."""
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def table(rows: Table) -> str:
    """A table whose first column is text."""
    lines = [filled(f"**{rows.caption}**") + "\n"] if rows.caption else []
    lines.append("| " + " | ".join(rows.columns) + " |")
    lines.append("| --- |" + " ---: |" * (len(rows.columns) - 1))
    lines += ["| " + " | ".join(row) + " |" for row in rows.rows]
    return "\n".join(lines)


def targets(verdicts: Sequence[Verdict]) -> str:
    """The table at the top."""
    lines = ["| target | bound | measured | | remark |", "| --- | ---: | ---: | --- | --- |"]
    for verdict in verdicts:
        target = verdict.target
        bound = f"{'≥' if target.at_least else '≤'} {target.bound:,g} {target.unit}"
        found = "" if verdict.figure is None else f"{verdict.figure:,.2f} {target.unit}"
        lines.append(f"| {target.promise} | {bound} | {found} | {verdict.word} | {target.remark} |")
    return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All that one run found."""

    # How thorough it was, for a person to read.
    settings: str
    machine: Mapping[str, str]
    results: Mapping[Scenario, Result]
    # Why, for each scenario that gave nothing.
    skipped: Mapping[Scenario, str]

    @property
    def figures(self) -> dict[str, Mapping[str, Any]]:
        """The figures of each scenario, by its name."""
        return {scenario.name: result.figures for scenario, result in self.results.items()}


def write(folder: Path, run: Run, verdicts: Sequence[Verdict]) -> Path:
    """REPORT.md and its plots; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = ["# Trunkline, measured", _INTRODUCTION, f"This run: {run.settings}."]
    parts += ["## Targets", targets(verdicts), _READING.read_text().strip()]
    for scenario, result in run.results.items():
        parts += _section(folder, scenario, result)
    parts += _soaked(folder)
    if run.skipped:
        parts.append("## Not run")
        parts.append("\n".join(f"- `{each.name}`: {why}" for each, why in run.skipped.items()))
    parts.append("## Machine and versions")
    facts = [[key, value] for key, value in run.machine.items()]
    parts.append(table(Table(["what", "value"], facts)))
    path = folder / "REPORT.md"
    path.write_text("\n\n".join(parts) + "\n")
    return path


def _soaked(folder: Path) -> list[str]:
    """What the last soak in the same folder found, if there was one."""
    path = folder / "soak.json"
    if not path.is_file():
        return []
    soak = json.loads(path.read_text())
    last, commit = soak["moments"][-1], soak["machine"]["commit"]
    return [
        "## Soak",
        filled(
            f"`make bench-soak`, at commit {commit}: {last['calls']:,} calls to one worker, "
            f"{last['resident_mb']:.0f} MB at the end, {soak['growth']:.3f} of that after a tenth."
        ),
        "![Memory of one worker](soak.svg)",
    ]


def _section(folder: Path, scenario: Scenario, result: Result) -> list[str]:
    parts = [
        f"## {scenario.title}",
        filled(
            f"`--only {scenario.name}`. Configuration: {scenario.config}. Payload: "
            f"{scenario.payload}. Expected, and found: {scenario.expected}."
        ),
        *(table(each) for each in result.tables),
        *(filled(note) for note in result.notes),
    ]
    for plot in result.plots:
        (folder / f"{plot.name}.svg").write_text(draw(plot))
        parts.append(f"![{plot.title}]({plot.name}.svg)")
    return parts
