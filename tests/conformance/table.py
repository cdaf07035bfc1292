"""The outcomes as a table for people."""

from collections.abc import Mapping, Sequence

from tests.conformance.play import Case
from tests.conformance.run import EXAMPLE, Outcome

Outcomes = Mapping[str, Mapping[str, Outcome]]


def table(listed: Sequence[Case], outcomes: Outcomes, missing: Sequence[str]) -> str:
    """A Markdown table of case and client, with a line of sums."""
    names = [*outcomes, *missing]
    rows = [["case", *names], ["---"] * (len(names) + 1)]
    for case in listed:
        name = str(case["name"])
        rows.append([name, *(_word(outcomes, client, name) for client in names)])
    if any(EXAMPLE in outcomes[client] for client in outcomes):
        rows.append([EXAMPLE, *(_word(outcomes, client, EXAMPLE) for client in names)])
    passed = [
        sum(outcomes[client][case["name"]].state == "ok" for case in listed)
        if client in outcomes
        else 0
        for client in names
    ]
    rows.append([f"passed of {len(listed)}", *map(str, passed)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return "\n".join(lines)


def failures(outcomes: Outcomes) -> list[str]:
    """A line for each case that failed or was skipped where it must not be."""
    return [
        f"{client}: {name}: {outcome.state}: {outcome.reason}"
        for client, rows in outcomes.items()
        for name, outcome in rows.items()
        if outcome.state == "failed"
    ]


def _word(outcomes: Outcomes, client: str, case: str) -> str:
    if client not in outcomes:
        return "no tools"
    return outcomes[client][case].state if case in outcomes[client] else "-"
