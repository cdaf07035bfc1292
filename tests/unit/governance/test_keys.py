"""Who may call, and what each caller may use."""

import dataclasses
import hashlib
from typing import Any

import pytest

from trunkline import v1
from trunkline_server.__main__ import main
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.addresses import Networks
from trunkline_server.governance.identity.keys import (
    Key,
    KeyRing,
    LastUsed,
    RetiredSecret,
    digest_of,
    new_key,
)
from trunkline_server.governance.identity.principal import ANONYMOUS, Kind, Principal

TEAM_KEY = Key("team", digest_of("tk_team"), models=("gpt-*", "openai/*"), routes=("cheap",))
GONE = Key("gone", digest_of("tk_gone"), expires=100.0)
RING = KeyRing([TEAM_KEY, GONE])
TEAM = TEAM_KEY.principal()


def refusal(authorization: str, now: float = 0.0) -> TrunklineError:
    with pytest.raises(TrunklineError) as caught:
        RING.authenticate(authorization, now)
    assert caught.value.reason == v1.ERROR_REASON_AUTHENTICATION
    return caught.value


@pytest.mark.parametrize("header", ["Bearer tk_team", "bearer tk_team", "Bearer  tk_team "])
def test_a_known_key_is_its_caller(header: str) -> None:
    assert RING.authenticate(header, 0.0) == TEAM


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
    assert RING.authenticate("Bearer tk_gone", 99.9) == GONE.principal()
    assert "'gone' has expired" in refusal("Bearer tk_gone", 100.0).message


def test_without_keys_everyone_is_anonymous() -> None:
    ring = KeyRing([])
    assert not ring.required
    assert ring.authenticate("", 0.0) is ANONYMOUS
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


def test_names_that_others_choose_are_nobody_elses() -> None:
    """A token in a key's name draws on nothing of the key's, and metrics stay few."""
    ada = Principal(kind=Kind.TOKEN, name="team", source="issuers[corp]")
    assert (TEAM.account, TEAM.group) == ("team", "team")
    assert (ada.account, ada.group) == ("issuers[corp]/team", "issuers[corp]")
    assert (ANONYMOUS.account, ANONYMOUS.group) == ("anonymous", "anonymous")


def test_a_key_without_patterns_permits_nothing() -> None:
    none = Key("none", digest_of("tk_none"), models=(), routes=()).principal()
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
    key = Key("k", digest_of("tk_k"), models=("claude-*", pattern)).principal()
    assert [name for name in permitted if not key.permits(name)] == []
    assert [name for name in refused if key.permits(name)] == []
    assert key.permits("claude-4")


def test_a_new_key_is_hard_to_guess_and_easy_to_name() -> None:
    made = [new_key() for _ in range(100)]
    assert len({key.text for key in made}) == len({key.digest for key in made}) == 100
    for key in made:
        assert key.text.startswith(f"{key.prefix}_")
        # 256 bits in base64 are 43 characters.
        assert len(key.text) == len(key.prefix) + 1 + 43
        assert key.digest == hashlib.sha256(key.text.encode()).digest()
        assert key.text not in repr(key)
    ring = KeyRing([Key("made", made[0].digest)])
    assert ring.authenticate(f"Bearer {made[0].text}", 0.0).name == "made"


def test_no_digest_is_in_a_repr() -> None:
    key = Key("k", digest_of("tk_k"), retired=(RetiredSecret(digest_of("tk_old"), 9.0),))
    for digest in (digest_of("tk_k"), digest_of("tk_old")):
        assert repr(digest) not in repr(key)


@pytest.mark.parametrize(
    ("secret", "now", "good"),
    [
        ("tk_new", 0.0, True),
        ("tk_old", 99.9, True),
        ("tk_old", 100.0, False),
        ("tk_older", 49.9, True),
        ("tk_older", 50.0, False),
        ("tk_new", 149.9, True),
        # The key's own end is its old secrets' too.
        ("tk_new", 150.0, False),
        ("tk_endless", 149.9, True),
        ("tk_endless", 150.0, False),
    ],
)
def test_a_rotated_key_opens_with_both_secrets_for_a_while(
    secret: str, now: float, good: bool
) -> None:
    key = Key(
        "team",
        digest_of("tk_new"),
        expires=150.0,
        retired=(
            RetiredSecret(digest_of("tk_old"), 100.0),
            RetiredSecret(digest_of("tk_older"), 50.0),
            RetiredSecret(digest_of("tk_endless"), 1e9),
        ),
    )
    ring = KeyRing([key])
    if good:
        assert ring.authenticate(f"Bearer {secret}", now) == key.principal()
        return
    with pytest.raises(TrunklineError, match="'team' has expired or was rotated") as caught:
        ring.authenticate(f"Bearer {secret}", now)
    assert caught.value.reason == v1.ERROR_REASON_AUTHENTICATION


def test_two_keys_cannot_have_one_secret() -> None:
    shared = digest_of("tk_shared")
    with pytest.raises(ValueError, match="'a' and 'b' have one secret"):
        KeyRing([Key("a", shared), Key("b", digest_of("x"), retired=(RetiredSecret(shared, 1.0),))])


def test_use_is_noted_for_good_keys_alone() -> None:
    used = LastUsed()
    ring = KeyRing([TEAM_KEY, GONE], used)
    ring.authenticate("Bearer tk_team", 7.0)
    ring.authenticate("Bearer tk_team", 9.0)
    for header in ("Bearer tk_gone", "Bearer tk_other"):
        with pytest.raises(TrunklineError):
            ring.authenticate(header, 200.0)
    assert used.take() == {"team": 9.0}
    assert used.take() == {}
    ring.authenticate("Bearer tk_team", 11.0)
    assert used.take() == {"team": 11.0}


def test_a_keys_principal_has_what_the_key_has() -> None:
    key = Key(
        "k",
        digest_of("tk_k"),
        tenant="acme",
        project="p",
        user="u",
        service="s",
        roles=frozenset({"viewer"}),
        scopes=frozenset({"admin.*"}),
        tier="gold",
        networks=Networks(("10.0.0.0/8",)),
    )
    assert KeyRing([key]).authenticate("Bearer tk_k", 0.0) == Principal(
        kind=Kind.KEY,
        name="k",
        source="keys[k]",
        tenant="acme",
        project="p",
        user="u",
        service="s",
        roles=frozenset({"viewer"}),
        scopes=frozenset({"admin.*"}),
        tier="gold",
        networks=Networks(("10.0.0.0/8",)),
    )


DIFFERENT: dict[str, Any] = {
    "kind": Kind.TOKEN,
    "name": "other",
    "source": "keys[other]",
    "tenant": "acme",
    "project": "p",
    "user": "u",
    "service": "s",
    "roles": frozenset({"admin"}),
    "scopes": frozenset(),
    "tier": "gold",
    "models": ("gpt-*",),
    "routes": (),
    "networks": Networks(("10.0.0.0/8",)),
}


def test_principals_are_equal_only_if_all_their_rights_are() -> None:
    fields = {one.name for one in dataclasses.fields(Principal) if one.init}
    assert fields == DIFFERENT.keys()
    base: dict[str, Any] = {"kind": Kind.KEY, "name": "k", "source": "keys[k]"}
    assert Principal(**base) == Principal(**base)
    assert hash(Principal(**base)) == hash(Principal(**base))
    for name, value in DIFFERENT.items():
        assert Principal(**base) != Principal(**{**base, name: value}), name


def test_the_command_makes_keys_of_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hash-key"]) == 0
    printed = dict(line.split()[:2] for line in capsys.readouterr().out.splitlines())
    made = new_key()
    assert len(printed["key:"]) == len(made.text)
    assert printed["key:"].startswith(f"{printed['prefix:']}_")
    assert len(printed["prefix:"]) == len(made.prefix)
    assert printed["hash:"] == f"sha256:{digest_of(printed['key:']).hex()}"
