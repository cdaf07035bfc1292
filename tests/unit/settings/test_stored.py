"""What the store holds of the configuration is read as if it stood in the file."""

from collections.abc import Mapping
from typing import Any

import pytest

from trunkline_server.settings import (
    STORED_KINDS,
    AuthSettings,
    ConfigError,
    GoogleAuthSettings,
    Known,
    ProviderKind,
    Settings,
    Stored,
    parse,
    written_documents,
)
from trunkline_server.settings.stored import LIST_KINDS

ENV = {"A_KEY": "sk-a", "DSN": "postgres://me:secret@host/db"}
OWNED = (
    "state: {database: 'sqlite:///t.db', owns: [providers, deployments, models, keys, budgets]}\n"
)
Documents = Mapping[str, Mapping[str, Mapping[str, Any]]]
GOOD: Documents = {
    "providers": {
        "a": {"dialect": "openai", "base_url": "http://a/v1", "api_key": "env:A_KEY"},
        "a.b": {"dialect": "openai", "base_url": "http://b/v1", "connect_timeout": "1.5s"},
    },
    "deployments": {
        "one": {"provider": "a", "model": "m", "weight": 2.5, "price": {"input": "1.25"}},
        "two": {"provider": "a.b", "model": "m", "enabled": False, "capabilities": ["chat"]},
    },
    "models": {"org/m": {"deployments": ["one"], "hedge": False, "strategy": "weighted"}},
    "keys": {"team": {"hash": f"sha256:{'0' * 64}", "expires": "2030-01-01T00:00:00Z"}},
    "budgets": {"b": {"scope": "key", "amount": "0.5", "thresholds": [0.5]}},
}


def read(documents: Documents, text: str = OWNED, **more: Any) -> Settings:
    return parse(text, "trunkline.yaml", ENV, stored=Stored(documents, **more))


def told(documents: Documents, text: str = OWNED) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(documents, text)
    return str(caught.value).splitlines()


def test_the_store_s_documents_are_read_as_the_file_s() -> None:
    settings = read(GOOD, drained=frozenset({"providers/a"}), revision=7)
    in_file = parse(
        """
        providers:
          a: {dialect: openai, base_url: "http://a/v1", api_key: env:A_KEY}
          a.b: {dialect: openai, base_url: "http://b/v1", connect_timeout: 1.5s}
        deployments:
          - {name: one, provider: a, model: m, weight: 2.5, price: {input: "1.25"}}
          - {name: two, provider: a.b, model: m, enabled: false, capabilities: [chat]}
        models: {org/m: {deployments: [one], hedge: false, strategy: weighted}}
        keys: [{name: team, hash: "sha256:%s", expires: 2030-01-01}]
        budgets: {b: {scope: key, amount: "0.5", thresholds: [0.5]}}
        """
        % ("0" * 64),
        "trunkline.yaml",
        ENV,
    )
    for kind in STORED_KINDS:
        assert getattr(settings, kind) == getattr(in_file, kind), kind
    assert settings.drained == frozenset({"providers/a"})
    assert (settings.revision, settings.partial) == (7, False)


def test_an_empty_store_is_a_beginning() -> None:
    settings = read({})
    assert (settings.providers, settings.deployments, settings.keys) == ({}, (), ())


def test_until_the_store_is_read_the_settings_are_partial() -> None:
    text = OWNED + "routes: {r: {deployments: [one]}}\nserver: {listen: '0.0.0.0:1'}\n"
    settings = parse(text, "trunkline.yaml", ENV)
    assert settings.partial
    assert told({}, text) == [
        "trunkline.yaml:2: routes.r.deployments[0]: 'one' is not the name of a deployment"
    ]
    assert not read(GOOD, text).partial


@pytest.mark.parametrize("kind", STORED_KINDS)
def test_a_kind_in_both_is_an_error_that_names_it(kind: str) -> None:
    others = "" if kind == "providers" else "providers: {openai: {api_key: env:A_KEY}}\n"
    empty = "[]" if kind in LIST_KINDS else "{}"
    text = f"state: {{database: 'sqlite:///t.db', owns: [{kind}]}}\n{others}{kind}: {empty}\n"
    line = text.count("\n")
    assert (
        f"trunkline.yaml:{line}: {kind}: stands in the file, and state.owns says that the store "
        "owns it; move it to the store, or take it out of state.owns"
    ) in told({}, text)


def test_mistakes_are_told_by_kind_name_and_field() -> None:
    wrong: Documents = {
        **GOOD,
        "providers": {"a.b": {"dialect": "openai", "base_url": "nonsense", "regoin": "eu"}},
        "deployments": {"one": {"provider": "a.b", "model": "m"}, "x": {"provider": "gone"}},
    }
    with pytest.raises(ConfigError) as caught:
        read(wrong)
    assert [(each.kind, each.name, each.field) for each in caught.value.problems] == [
        ("deployments", "x", ""),
        ("providers", "a.b", "base_url"),
        ("providers", "a.b", "regoin"),
    ]
    assert all(each.stored for each in caught.value.problems)
    assert told(wrong)[-1] == (
        "the store: providers 'a.b': regoin: is not known here; did you mean region?"
    )


def test_what_the_file_gets_wrong_about_the_store_is_told_of_the_file() -> None:
    text = OWNED + "routes:\n  r: {deployments: [one, gone]}\n"
    with pytest.raises(ConfigError) as caught:
        read(GOOD, text)
    (problem,) = caught.value.problems
    assert (problem.line, problem.stored) == (3, False)
    assert (problem.kind, problem.name, problem.field) == ("routes", "r", "deployments[1]")


@pytest.mark.parametrize("reference", ["env:DSN", "file:/etc/hostname", "vault:a/b#c"])
@pytest.mark.parametrize("place", ["api_key", "header"])
def test_the_store_may_not_refer_to_what_it_is_not_permitted(reference: str, place: str) -> None:
    """Whoever may change a provider chooses where its key is sent: not every secret is a key."""
    provider: dict[str, object] = {"dialect": "openai", "base_url": "http://a/v1"}
    provider |= {"api_key": reference} if place == "api_key" else {"headers": {"x-k": reference}}
    documents = {"providers": {"a": provider}}
    (line,) = told(documents)
    assert line.endswith("refers to what state.references does not permit")
    assert "secret" not in line
    if reference == "env:DSN":
        permitted = OWNED.replace("owns", "references: ['env:DSN'], owns")
        assert read(documents, permitted).providers["a"]


@pytest.mark.parametrize("auth", ["{}", "{impersonate: a@b}"])
def test_the_store_may_not_lend_the_router_s_own_identity(auth: str) -> None:
    """Whoever may change a provider chooses where its tokens are sent."""
    identity = {} if auth == "{}" else {"impersonate": "a@b"}
    vendor = {"dialect": "openai", "base_url": "http://a/v1", "auth": {"google": identity}}
    documents = {"providers": {"a": vendor}}
    (line,) = told(documents)
    assert line.endswith("auth.google: refers to what state.references does not permit")
    permitted = OWNED.replace("owns", "references: ['identity:google'], owns")
    assert read(documents, permitted).providers["a"]
    # With a key that the store may refer to, the identity is that one's.
    vendor["auth"] = {"google": {**identity, "credentials": "env:A_KEY"}}
    assert read(documents).providers["a"]


def test_nor_have_it_lent_by_the_catalogue() -> None:
    kind = ProviderKind("gemini", "https://g/v1", auth=AuthSettings(google=GoogleAuthSettings()))
    known = Known(kinds={"cloud": kind})
    documents: Documents = {"providers": {"cloud": {}}}
    with pytest.raises(ConfigError, match=r"uses identity:google, which state\.references"):
        parse(OWNED, "trunkline.yaml", ENV, known, stored=Stored(documents))
    permitted = OWNED.replace("owns", "references: ['identity:*'], owns")
    assert parse(permitted, "trunkline.yaml", ENV, known, stored=Stored(documents))
    in_file = "providers: {cloud: {base_url: 'http://a/v1'}}\n"
    with pytest.raises(ConfigError, match="base_url: is not the kind's, to which alone"):
        parse(in_file, "trunkline.yaml", ENV, known)
    assert parse("providers: {cloud: {}}\n", "trunkline.yaml", ENV, known)


def test_what_needs_a_database_says_so() -> None:
    providers = "providers: {a: {dialect: openai, base_url: 'http://a/v1'}}\n"
    assert told({}, "state: {owns: [models]}\n" + providers) == [
        "trunkline.yaml:1: state.owns: needs state.database, where those resources are"
    ]
    admin = f"admin: {{keys: [{{name: root, hash: 'sha256:{'1' * 64}'}}]}}\n"
    assert told({}, admin + providers) == [
        "trunkline.yaml:1: admin.keys: needs state.database, where the control plane keeps things"
    ]


def test_an_administrator_s_key_is_nobody_else_s() -> None:
    text = OWNED + f"admin: {{keys: [{{name: r, hash: 'sha256:{'0' * 64}', roles: [amdin]}}]}}\n"
    lines = told(GOOD, text)
    assert [line.split(": ", 1)[1] for line in lines] == [
        "admin.keys[0].hash: is that of keys[0] too",
        "admin.keys[0].roles: 'amdin' is not the name of a role; did you mean admin?",
    ]


@pytest.mark.parametrize(
    ("server", "keys", "address"),
    [
        ("", False, ""),
        ("", True, "127.0.0.1:50052"),
        ("admin_listen: 'off'", True, ""),
        ("admin_listen: off", True, ""),
        ("admin_listen: '[::1]:7'", False, "[::1]:7"),
    ],
)
def test_where_the_control_plane_is(server: str, keys: bool, address: str) -> None:
    text = OWNED + f"server: {{{server}}}\n"
    if keys:
        text += f"admin: {{keys: [{{name: root, hash: 'sha256:{'1' * 64}'}}]}}\n"
    assert read(GOOD, text).admin_address == address


def test_what_stands_in_the_file_is_shown_as_it_stands() -> None:
    found = written_documents(
        """
        providers: {openai: , a: {api_key: env:A_KEY, connect_timeout: 1.5, flags: {x: 1}}}
        deployments:
          - {provider: a, model: org/m, price: {input: 0.10}, enabled: no}
        keys: [{name: team, hash: x}]
        """
    )
    assert found["providers"] == {
        "openai": {},
        "a": {"api_key": "env:A_KEY", "connect_timeout": pytest.approx(1.5), "flags": {"x": 1}},
    }
    (deployment,) = found["deployments"].values()
    assert list(found["deployments"]) == ["a-org-m"]
    assert (str(deployment["price"]["input"]), deployment["enabled"]) == ("0.10", False)
    assert list(found["keys"]) == ["team"]


def test_the_last_tenant_of_a_stored_key_stays() -> None:
    text = "state: {database: 'sqlite:///t.db', owns: [providers, tenants, keys]}\n"
    keys = {"team": {"hash": f"sha256:{'0' * 64}", "tenant": "acme"}}
    assert read({"keys": keys, "tenants": {"acme": {}}}, text).tenants
    assert told({"keys": keys}, text) == [
        "the store: keys 'team': tenant: 'acme' is not the name of a tenant"
    ]
