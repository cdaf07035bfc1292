"""The harness itself: the list is sound, a right client passes and wrong ones do not."""

import sys
from dataclasses import replace
from typing import Any

import pytest

from tests.conformance.clients import ROOT, Client, clients
from tests.conformance.matching import differences
from tests.conformance.run import cases, play_all
from tests.conformance.table import failures, table

# Of each kind one, none of which starts a router of its own; the whole list is `make clients`.
QUICK = [
    "unary",
    "stream",
    "tool-round-trip",
    "metadata",
    "cancel-unary",
    "cancel-midstream",
    "leave-stream",
    "stream-without-end",
    "error-invalid-request",
    "error-foreign",
    "retry",
    "no-retry",
]

# Those among them that do not wait for what a liar never does.
_AT_ONCE = [name for name in QUICK if not name.startswith(("cancel", "leave"))]

# Answers everything, quickly and wrongly.
_LIAR = """
import json, sys
for line in sys.stdin:
    told = json.loads(line)
    ok = told["op"] in ("open", "close")
    answer = {"ok": True} if ok else {"response": "", "text": "", "done": True, "left": True}
    print(json.dumps({"id": told["id"], **answer}), flush=True)
"""


def liar(script: str) -> Client:
    return replace(clients(["python"])[0], name="liar", drive=(sys.executable, "-c", script))


async def test_the_python_clients_pass() -> None:
    listed = cases(QUICK)
    outcomes = await play_all(clients(["python", "python-asyncio"]), listed)
    assert failures(outcomes) == []
    assert table(listed, outcomes, []).count("| ok") == 2 * len(listed)


async def test_a_client_that_makes_no_calls_fails_every_case() -> None:
    outcomes = await play_all([liar(_LIAR)], cases(_AT_ONCE))
    states = {name: each.state for name, each in outcomes["liar"].items()}
    assert states == dict.fromkeys(_AT_ONCE, "failed")


async def test_a_client_that_dies_fails_the_case_and_says_what_it_said() -> None:
    listed = cases(["unary", "stream"])
    outcomes = await play_all([liar("import sys; sys.exit('no luck')")], listed)
    told = outcomes["liar"]
    assert [each.state for each in told.values()] == ["failed", "failed"]
    assert "no luck" in told["unary"].reason


def test_the_names_of_cases_are_their_own() -> None:
    names = [case["name"] for case in cases()]
    assert len(names) == len(set(names)) >= 30
    assert set(QUICK) <= set(names)
    for case in cases():
        assert set(case) <= {"name", "says", "start", "client", "needs", "steps"}, case["name"]
        assert case["says"]


def test_every_client_has_its_row() -> None:
    folders = {path.name for path in (ROOT / "clients").iterdir() if (path / "README.md").exists()}
    assert {client.folder.name for client in clients()} == folders


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ({"a": 1, "b": 2}, {"a": 1}),
        ({"a": [1, {"b": 2}]}, {"a": [1, {}]}),
        ({"a": "text"}, {"a": {"$contains": "ex"}}),
        ({"a": "text"}, {"a": {"$prefix": "te"}}),
        ({"a": "7"}, {"a": {"$gt": 6}}),
        ({"a": 7}, {"a": {"$le": 7}}),
        ({"a": [1, 2]}, {"a": {"$len": 2}}),
        ({}, {"a": {"$absent": True}}),
        ({"a": None}, {"a": None}),
    ],
)
def test_what_matches(found: Any, wanted: Any) -> None:
    assert differences(found, wanted) == []


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ({}, {"a": 1}),
        ({}, {"a": {}}),
        ({}, {"a": None}),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"a": {"b": 1}}),
        ({"a": [1]}, {"a": [1, 1]}),
        ({"a": [1]}, {"a": []}),
        ({"a": "text"}, {"a": {"$contains": "no"}}),
        ({"a": "text"}, {"a": {"$prefix": "ex"}}),
        ({"a": 6}, {"a": {"$gt": 6}}),
        ({"a": 8}, {"a": {"$le": 7}}),
        ({"a": [1]}, {"a": {"$len": 2}}),
        ({"a": None}, {"a": {"$absent": True}}),
    ],
)
def test_what_does_not_match(found: Any, wanted: Any) -> None:
    assert len(differences(found, wanted)) == 1
