"""What a call may ask for, and how the asking is read."""

import re

import pytest

import trunkline_server.simulator as package
from trunkline_server.simulator.counters import RequestLimit, Strikes
from trunkline_server.simulator.script import (
    EARLY_FAULTS,
    KEYS,
    MIDSTREAM_FAULTS,
    PRESETS,
    Script,
    ScriptError,
    parse,
    preset,
    resolve,
    split_model,
)


def test_settings_are_read_with_either_separator() -> None:
    assert parse("latency_ms=50;tokens=3&error_rate=0.5 ; fault=hang;") == {
        "latency_ms": 50.0,
        "tokens": 3,
        "error_rate": 0.5,
        "fault": "hang",
    }
    assert parse("") == {}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("latnecy_ms=5", "unknown key 'latnecy_ms'"),
        ("latency_ms=-1", "latency_ms='-1'"),
        ("latency_ms=nan", "latency_ms='nan'"),
        ("latency_ms", "latency_ms=''"),
        ("tokens=0", "from 1"),
        ("tokens=1.5", "tokens='1.5'"),
        ("status=200", "from 400 to 599"),
        ("fault=explode", "one of"),
        ("error_rate=2", "from 0 to 1"),
        ("=5", "unknown key ''"),
    ],
)
def test_nonsense_is_refused_by_name(text: str, part: str) -> None:
    with pytest.raises(ScriptError, match=re.escape(part)):
        parse(text)


def test_later_sources_win() -> None:
    defaults = Script(latency_ms=1, chunk_ms=9)
    read = resolve("sim-slow?latency_ms=2&tokens=5", "latency_ms=3", "latency_ms=4", defaults)
    assert (read.latency_ms, read.chunk_ms, read.tokens) == (4, 100, 5)
    assert resolve("sim-slow?tokens=5", "latency_ms=3", "", defaults).latency_ms == 3
    assert resolve("sim-slow?latency_ms=2", "", "", defaults).latency_ms == 2
    assert resolve("sim-slow", "", "", defaults).latency_ms == 1000
    assert resolve("sim-large", "", "", defaults) is defaults


def test_failing_first_needs_no_status() -> None:
    assert resolve("sim-large?fail_first=2", "", "", Script()).status == 500
    assert resolve("sim-large?fail_first=2;status=429", "", "", Script()).status == 429
    assert resolve("sim-hang?fail_first=2", "", "", Script()).status == 0


def test_models_stand_for_settings() -> None:
    assert preset("sim-error-529") == {"status": 529}
    assert preset("sim-error-404") == {"status": 404}
    for name in ("sim-large", "gpt-5", "sim-error-302", "sim-error-4290", "sim-error-"):
        assert preset(name) == {}
    assert split_model("sim-large?tokens=5") == ("sim-large", "tokens=5")
    for settings in PRESETS.values():
        Script(**settings)


def test_every_fault_has_a_model() -> None:
    faults = {settings.get("fault") for settings in PRESETS.values()} - {None}
    assert faults == EARLY_FAULTS | MIDSTREAM_FAULTS | {"filter"}


def test_the_docstring_tells_all_keys_and_models() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", package.__doc__ or "", re.MULTILINE)
    keys = {row for row in rows if not row.startswith(("sim-", "/"))}
    models = {row for row in rows if row.startswith("sim-")}
    assert keys == set(KEYS)
    assert models == set(PRESETS)


class TestStrikes:
    def test_without_a_failure_none_strikes(self) -> None:
        assert not Strikes().strikes("x", Script(latency_ms=5))

    def test_always(self) -> None:
        strikes = Strikes()
        assert all(strikes.strikes("x", Script(status=500)) for _ in range(5))

    def test_first_ones_only_and_apart_from_other_scripts(self) -> None:
        strikes, script = Strikes(), Script(status=500, fail_first=2)
        assert [strikes.strikes("x", script) for _ in range(4)] == [True, True, False, False]
        assert strikes.strikes("y", script)
        strikes.clear()
        assert strikes.strikes("x", script)

    def test_a_share_repeatably(self) -> None:
        script = Script(status=500, error_rate=0.3, seed=7)
        one, other = Strikes(), Strikes()
        drawn = [one.strikes("x", script) for _ in range(2000)]
        assert drawn == [other.strikes("x", script) for _ in range(2000)]
        assert 500 < sum(drawn) < 700
        different = Script(status=500, error_rate=0.3, seed=8)
        assert drawn != [other.strikes("y", different) for _ in range(2000)]


def test_request_limit_counts_minutes_from_the_first_request() -> None:
    now = 100.0
    limit = RequestLimit(lambda: now)
    assert [limit.take("a", 2)[0] for _ in range(3)] == [True, True, False]
    assert limit.take("b", 2)[0]
    now = 130.0
    allowed, quota = limit.take("a", 2)
    assert not allowed
    assert (quota.limit, quota.remaining, quota.reset) == (2, 0, 30.0)
    now = 160.0
    allowed, quota = limit.take("a", 2)
    assert allowed
    assert (quota.remaining, quota.reset) == (1, 60.0)
