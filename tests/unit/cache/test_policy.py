"""Which calls use the cache, and which answers are kept."""

import pytest

from tests.unit.cache.samples import ask
from trunkline import v1
from trunkline_server.cache.policy import (
    Intent,
    Rules,
    embed_intent,
    generate_intent,
    may_keep,
)
from trunkline_server.errors import TrunklineError

READ = Intent(read=True, write=True, only=False, ttl=3_600.0)
COLD, WARM, UNSET = 0.0, 0.7, None


def _intent(
    temperature: float | None, policy: v1.CachePolicy | None, rules: Rules
) -> Intent | None:
    request = v1.GenerateRequest(model="m")
    if temperature is not None:
        request.config.temperature = temperature
    if policy is not None:
        request.cache.CopyFrom(policy)
    return generate_intent(request, rules)


def _policy(mode: v1.CacheMode.ValueType, ttl: float | None = None) -> v1.CachePolicy:
    policy = v1.CachePolicy(mode=mode)
    if ttl is not None:
        policy.ttl.FromNanoseconds(round(ttl * 1e9))
    return policy


DEFAULT, BYPASS, REFRESH, ONLY = (
    v1.CACHE_MODE_UNSPECIFIED,
    v1.CACHE_MODE_BYPASS,
    v1.CACHE_MODE_REFRESH,
    v1.CACHE_MODE_ONLY_IF_CACHED,
)


@pytest.mark.parametrize(
    ("temperature", "policy", "expected"),
    [
        (COLD, None, READ),
        (WARM, None, None),
        (UNSET, None, None),
        (COLD, _policy(DEFAULT), READ),
        (WARM, _policy(DEFAULT), None),
        (WARM, _policy(DEFAULT, 60.0), READ._replace(ttl=60.0)),
        (UNSET, _policy(DEFAULT, 0.5), READ._replace(ttl=0.5)),
        (COLD, _policy(DEFAULT, 10**9), READ._replace(ttl=86_400.0)),
        (COLD, _policy(DEFAULT, 0.0), READ._replace(write=False, ttl=0.0)),
        (COLD, _policy(BYPASS), None),
        (COLD, _policy(BYPASS, 60.0), None),
        (WARM, _policy(REFRESH), READ._replace(read=False)),
        (WARM, _policy(ONLY), READ._replace(write=False, only=True)),
    ],
)
def test_what_a_call_wants(
    temperature: float | None, policy: v1.CachePolicy | None, expected: Intent | None
) -> None:
    assert _intent(temperature, policy, Rules()) == expected


def test_the_ceiling_is_configured() -> None:
    rules = Rules(max_temperature=0.7)
    assert _intent(0.7, None, rules) == READ
    assert _intent(0.71, None, rules) is None
    assert _intent(UNSET, None, rules) is None
    assert _intent(UNSET, None, Rules(max_temperature=1.0)) == READ


@pytest.mark.parametrize("mode", [DEFAULT, BYPASS, REFRESH])
def test_off_is_off(mode: v1.CacheMode.ValueType) -> None:
    assert _intent(COLD, _policy(mode, 60.0), Rules(use="off")) is None
    assert _intent(COLD, None, Rules(use="off")) is None


def test_only_if_cached_without_a_cache_is_a_miss() -> None:
    with pytest.raises(TrunklineError) as caught:
        _intent(COLD, _policy(ONLY), Rules(use="off"))
    assert caught.value.reason == v1.ERROR_REASON_CACHE_MISS


def test_only_those_who_ask() -> None:
    rules = Rules(use="asked")
    assert _intent(COLD, None, rules) is None
    assert _intent(COLD, _policy(DEFAULT), rules) is None
    assert _intent(COLD, _policy(DEFAULT, 60.0), rules) == READ._replace(ttl=60.0)
    assert _intent(COLD, _policy(REFRESH), rules) == READ._replace(read=False)


def test_vectors_do_not_vary() -> None:
    request = v1.EmbedRequest(model="m", inputs=["a"])
    assert embed_intent(request, Rules()) == READ
    request.cache.mode = BYPASS
    assert embed_intent(request, Rules()) is None


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        (value, value in {v1.FINISH_REASON_STOP, v1.FINISH_REASON_TOOL_CALLS})
        for value in v1.FinishReason.values()
    ],
)
def test_only_whole_answers_are_kept(reason: v1.FinishReason.ValueType, kept: bool) -> None:
    assert may_keep(ask(), reason) == kept


def test_an_answer_cut_where_the_request_says_is_kept() -> None:
    limited = ask(config=v1.GenerationConfig(max_output_tokens=5))
    assert may_keep(limited, v1.FINISH_REASON_LENGTH)
    assert not may_keep(limited, v1.FINISH_REASON_CONTENT_FILTER)
