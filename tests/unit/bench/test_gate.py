"""The gate's verdicts."""

import json

import pytest
from bench import gate

ALLOWED = {"Route: function calls": 110.0, "Route: instructions": 50.0}
KNOWN = {"python": "3.11", "allowed": ALLOWED}


@pytest.mark.parametrize(
    ("counts", "python", "code", "word"),
    [
        ({"Route: function calls": 110.0}, "3.11", 0, "ok"),
        ({"Route: function calls": 110.1}, "3.11", 1, "too many"),
        ({"Route: function calls": 50.0}, "3.11", 0, "can be lowered"),
        ({"Route: instructions": 51.0}, "3.11", 1, "too many"),
        ({"Route: instructions": 51.0}, "3.14", 0, "not judged"),
        ({"Route: function calls": 111.0}, "3.14", 1, "too many"),
        ({"a new count": 1.0}, "3.11", 1, "no allowed figure"),
    ],
)
def test_a_count_is_judged_by_its_allowed_figure(
    capsys: pytest.CaptureFixture[str],
    counts: dict[str, float],
    python: str,
    code: int,
    word: str,
) -> None:
    known = {**KNOWN, "allowed": {k: v for k, v in ALLOWED.items() if k in counts}}
    assert gate.judge(counts, known, python) == code
    assert word in capsys.readouterr().out


def test_a_count_that_is_allowed_and_missing_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """A count that is silently no longer taken guards nothing."""
    assert gate.judge({"Route: function calls": 100.0}, KNOWN, "3.11", skipped={}) == 1
    assert "Route: instructions" in capsys.readouterr().out
    told = {"Route: instructions": "a reason"}
    assert gate.judge({"Route: function calls": 100.0}, KNOWN, "3.11", skipped=told) == 0


def test_the_allowed_figures_are_a_number_each() -> None:
    known = json.loads(gate.ALLOWED.read_text())
    assert set(known) == {"python", "allowed"}
    for name, figure in known["allowed"].items():
        assert figure > 0, name
