"""Who may call, and what each caller may use."""

import pytest

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.keys import Anonymous, Key, KeyRing, authorize, digest_of

TEAM = Key("team", digest_of("tk_team"), models=("gpt-*", "openai/*"), routes=("cheap",))
GONE = Key("gone", digest_of("tk_gone"), expires=100.0)
RING = KeyRing([TEAM, GONE])


def refusal(authorization: str, now: float = 0.0) -> TrunklineError:
    with pytest.raises(TrunklineError) as caught:
        RING.authenticate(authorization, now)
    assert caught.value.reason == v1.ERROR_REASON_AUTHENTICATION
    return caught.value


@pytest.mark.parametrize("header", ["Bearer tk_team", "bearer tk_team", "Bearer  tk_team "])
def test_a_known_key_is_its_caller(header: str) -> None:
    assert RING.authenticate(header, 0.0) is TEAM


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("", "is missing"),
        ("tk_team", "no bearer key"),
        ("Basic tk_team", "no bearer key"),
        ("Bearer ", "no bearer key"),
        ("Bearer tk_other", "not known"),
        ("Bearer " + digest_of("tk_team").hex(), "not known"),
    ],
)
def test_anything_else_is_refused_and_never_quoted(header: str, problem: str) -> None:
    error = refusal(header)
    assert problem in error.message
    assert "tk_" not in error.message


def test_an_expired_key_is_refused_by_name() -> None:
    assert RING.authenticate("Bearer tk_gone", 99.9) is GONE
    assert "'gone' has expired" in refusal("Bearer tk_gone", 100.0).message


def test_without_keys_everyone_is_anonymous() -> None:
    ring = KeyRing([])
    assert not ring.required
    assert isinstance(ring.authenticate("", 0.0), Anonymous)
    assert ring.authenticate("Bearer whatever", 0.0).permits("anything")


@pytest.mark.parametrize(
    ("model", "permitted"),
    [
        ("gpt-5", True),
        ("openai/gpt-5", True),
        ("anthropic/gpt-5", False),
        ("claude", False),
        ("GPT-5", False),
        ("route:cheap", True),
        ("route:gpt-5", False),
        ("", True),
    ],
)
def test_scopes_are_patterns_over_names(model: str, permitted: bool) -> None:
    assert TEAM.permits(model) is permitted


def test_a_denial_names_the_rule() -> None:
    authorize(TEAM, "gpt-5")
    with pytest.raises(TrunklineError) as caught:
        authorize(TEAM, "route:dear")
    assert caught.value.reason == v1.ERROR_REASON_AUTHORIZATION
    assert caught.value.metadata == {
        "key": "team",
        "model": "route:dear",
        "rule": "keys[team].routes",
    }


def test_a_key_without_patterns_permits_nothing() -> None:
    none = Key("none", digest_of("tk_none"), models=(), routes=())
    assert not none.permits("gpt-5")
    assert not none.permits("route:")
    assert not none.permits("route:cheap")


@pytest.mark.parametrize(
    ("pattern", "permitted", "refused"),
    [
        ("*", ("a", "a/b", "line\nbreak"), ()),
        ("gpt-?", ("gpt-5",), ("gpt-", "gpt-55", "xgpt-5", "gpt-5\n")),
        ("gpt-[45]", ("gpt-4", "gpt-5"), ("gpt-6", "gpt-[45]")),
        ("gpt-[!4]", ("gpt-5",), ("gpt-4",)),
        ("o1.5|o3", ("o1.5|o3",), ("o1.5", "o3", "o1x5|o3")),
    ],
)
def test_patterns_are_those_of_a_shell(
    pattern: str, permitted: tuple[str, ...], refused: tuple[str, ...]
) -> None:
    """Beside another pattern, that none of them leaks into the next."""
    key = Key("k", digest_of("tk_k"), models=("claude-*", pattern))
    assert [name for name in permitted if not key.permits(name)] == []
    assert [name for name in refused if key.permits(name)] == []
    assert key.permits("claude-4")
