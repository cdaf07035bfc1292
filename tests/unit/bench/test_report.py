"""The report: targets beside their figures, tables, plots."""

import math
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from bench.report import markdown
from bench.report.svg import Plot, draw
from bench.report.targets import TARGETS, Target, Verdict, judge
from bench.scenarios.base import Result, Scenario, Table
from bench.scenarios.registry import SCENARIOS

SVG = "{http://www.w3.org/2000/svg}"


def target(bound: float, *, at_least: bool = False) -> Target:
    return Target("a promise", bound, "ms", "route", lambda _: 0.0, at_least=at_least)


@pytest.mark.parametrize(
    ("figure", "at_least", "word"),
    [
        (1.0, False, "met"),
        (0.5, False, "met"),
        (1.01, False, "**not met**"),
        (1.0, True, "met"),
        (0.99, True, "**not met**"),
        (None, False, "not measured"),
    ],
)
def test_a_target_is_met_up_to_its_bound(figure: float | None, at_least: bool, word: str) -> None:
    assert Verdict(target(1.0, at_least=at_least), figure).word == word


def test_what_was_not_run_is_not_measured() -> None:
    verdicts = judge({})
    assert len(verdicts) == len(TARGETS)
    assert {verdict.word for verdict in verdicts} == {"not measured"}


def test_a_figure_that_a_scenario_should_have_given_is_missed() -> None:
    with pytest.raises(KeyError):
        judge({"startup": {}})


def test_every_target_names_a_scenario_and_names_are_unique() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert len(set(names)) == len(names)
    assert {each.scenario for each in TARGETS} <= set(names)


def test_the_report_has_targets_tables_plots_and_reasons(tmp_path: Path) -> None:
    def never(_bench: Any) -> Result:
        raise AssertionError("nothing is run here")

    ran = Scenario("ran", "What ran", "c", "p", "e", never)
    left = Scenario("left", "What did not", "c", "p", "e", never)
    plot = Plot("lines", "Lines", "x", "y", {"a": [(1.0, 2.0)]})
    table = Table(["case", "µs"], [["echo", "120"]], "Caption")
    run = markdown.Run(
        settings="5 rounds",
        machine={"cores": "2"},
        results={ran: Result([table], {"echo": 120}, [plot], ["A note."])},
        skipped={left: "no trace"},
    )
    path = markdown.write(tmp_path / "results", run, [Verdict(target(1.0), 2.0)])
    text = path.read_text()
    assert "| a promise | ≤ 1 ms | 2.00 ms | **not met** |  |" in text
    assert "| case | µs |\n| --- | ---: |\n| echo | 120 |" in text
    assert text.index("a promise") < text.index("What ran") < text.index("`left`: no trace")
    assert "![Lines](lines.svg)" in text
    assert (tmp_path / "results" / "lines.svg").is_file()
    assert run.figures == {"ran": {"echo": 120}}


def circles(plot: Plot) -> list[tuple[float, float]]:
    root = ET.fromstring(draw(plot))  # noqa: S314 - our own drawing
    return [
        (float(each.attrib["cx"]), float(each.attrib["cy"])) for each in root.iter(f"{SVG}circle")
    ]


def test_a_plot_places_points_by_their_values() -> None:
    line = [(0.0, 1.0), (50.0, 10.0), (100.0, 100.0)]
    places = circles(Plot("p", "<Title> & more", "x", "y", {"a": line}))
    (x0, y0), (x1, y1), (x2, y2) = places
    assert x0 < x1 < x2
    assert y0 > y1 > y2, "SVG counts downwards"
    assert math.isclose(x1 - x0, x2 - x1, abs_tol=0.2), "x is linear"
    assert math.isclose(y0 - y1, y1 - y2, abs_tol=0.2), "y is logarithmic"


@pytest.mark.parametrize("lines", [{}, {"a": []}, {"a": [(1.0, 1.0)]}, {"a": [(0.0, 0.0)]}])
def test_a_plot_of_little_is_still_drawn(lines: dict[str, list[tuple[float, float]]]) -> None:
    plot = Plot("p", "t", "x", "y", lines, log_x=True)
    assert len(circles(plot)) == sum(map(len, lines.values()))
