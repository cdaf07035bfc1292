"""Messages as documents: what the configuration's own parser reads, and what a file may hold."""

import random
from typing import Any

import orjson
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Value

from tests.support.admin_validator import ENVIRONMENT
from tests.unit.rpc.admin.scribble import scribbled
from trunkline import v1
from trunkline.admin import v1 as admin
from trunkline_server.rpc.admin.documents import METADATA, DocumentError, from_document, to_document
from trunkline_server.rpc.admin.kinds import KINDS
from trunkline_server.settings import (
    AccessPolicySettings,
    BindingSettings,
    CallersSettings,
    ConditionsSettings,
    GrantSettings,
    KeySettings,
    ProjectSettings,
    RoleSettings,
    TenantSettings,
    TierSettings,
    WindowSettings,
    parse,
)
from trunkline_server.settings.providers import (
    DeploymentSettings,
    PriceSettings,
    ProbeSettings,
    ProviderSettings,
)
from trunkline_server.settings.routing import AttemptSettings, BalanceSettings, PolicySettings

PROVIDER = admin.Provider(
    dialect="openai",
    base_url="http://127.0.0.1:1/v1",
    api_key="env:OTHER_KEY",
    auth=admin.ProviderAuth(header="x-api-key", prefix="Key "),
    headers={"x-team": "a"},
    flags={
        "strict": Value(bool_value=True),
        "version": Value(number_value=3),
        "word": Value(string_value="x"),
    },
    region="eu-west",
    residency=["eu"],
    price_provider="openai",
    connect_timeout=Duration(nanos=250_000_000),
    header_timeout=Duration(seconds=90),
    probe=admin.ProviderProbe(path="/health", model="m", interval=Duration(seconds=45)),
)
DEPLOYMENT = admin.Deployment(
    provider="p",
    model="vendor/model",
    region="us",
    residency=["us"],
    priority=0,
    weight=0.0,
    quality=0.75,
    capabilities=admin.Capabilities(add=["vision"], remove=["tools"]),
    context_tokens=200_000,
    max_output_tokens=8_000,
    price=admin.Price(input="1.10", output="0.000000000000000001", per_request="0"),
    enabled=False,
)
ROUTE = admin.Route(
    deployments=["d"],
    strategy=v1.STRATEGY_LOWEST_COST,
    max_targets=2,
    balance=admin.Balance(cost=0.0, latency=1.0),
    attempts=admin.Attempts(retries=0, backoff_base=Duration(), idle_timeout=Duration(seconds=9)),
    hedge=admin.Hedge(percentile=0.9, min_delay=Duration(nanos=70_000_000)),
)


def settings_of(**sections: Any) -> Any:
    """What the configuration's parser makes of documents."""
    everything = {"providers": {"p": to_document(PROVIDER)}, **sections}
    return parse(orjson.dumps(everything).decode(), "test", ENVIRONMENT)


def test_a_provider_is_what_the_parser_reads() -> None:
    read = settings_of().providers["p"]
    assert read.api_key.reference == "env:OTHER_KEY"
    assert (read.auth.header, read.auth.prefix) == ("x-api-key", "Key ")
    assert read.headers == {"x-team": "a"}
    assert read.flags == {"strict": True, "version": 3, "word": "x"}
    assert type(read.flags["version"]) is int
    assert (read.connect_timeout, read.header_timeout) == (0.25, 90.0)
    assert read.probe == ProbeSettings(path="/health", model="m", interval=45.0)
    assert (read.region, read.residency, read.price_provider) == ("eu-west", ("eu",), "openai")


def test_identities_of_clouds_are_what_the_parser_reads() -> None:
    auths = {
        "keys": admin.ProviderAuth(
            aws=admin.AwsAuth(
                access_key_id="env:OTHER_KEY",
                secret_access_key="env:OTHER_KEY",
                role_arn="arn:aws:iam::1:role/r",
                external_id="shared",
                duration=Duration(seconds=1800),
            )
        ),
        "machine": admin.ProviderAuth(entra=admin.EntraAuth()),
        "federated": admin.ProviderAuth(
            entra=admin.EntraAuth(tenant_id="t", client_id="c", federated_token_file="/run/token")
        ),
        "account": admin.ProviderAuth(
            google=admin.GoogleAuth(credentials="env:OTHER_KEY", scopes=["a", "b"])
        ),
    }
    documents = {}
    for name, auth in auths.items():
        provider = admin.Provider(
            dialect="openai", base_url="http://a/v1", region="us-east-1", auth=auth
        )
        documents[name] = to_document(provider)
        assert from_document(admin.Provider, documents[name]) == provider
    read = settings_of(providers={"p": to_document(PROVIDER), **documents}).providers
    aws = read["keys"].auth.aws
    assert (aws.access_key_id.reference, aws.duration) == ("env:OTHER_KEY", 1800.0)
    assert (aws.role_arn, aws.external_id) == ("arn:aws:iam::1:role/r", "shared")
    assert read["machine"].auth.entra is not None
    assert str(read["federated"].auth.entra.federated_token_file) == "/run/token"
    assert read["account"].auth.google.scopes == ("a", "b")


def test_a_deployment_is_what_the_parser_reads() -> None:
    (read,) = settings_of(deployments=[{**to_document(DEPLOYMENT), "name": "d"}]).deployments
    assert (read.priority, read.weight, read.quality, read.enabled) == (0, 0.0, 0.75, False)
    assert (read.context_tokens, read.max_output_tokens) == (200_000, 8_000)
    assert (read.capabilities.add, read.capabilities.remove) == (("vision",), ("tools",))
    assert str(read.price.input) == "1.10"
    assert f"{read.price.output:.18f}" == "0.000000000000000001"
    assert read.price.cached_input is None


def test_a_route_is_what_the_parser_reads() -> None:
    deployments = [{**to_document(DEPLOYMENT), "name": "d"}]
    read = settings_of(deployments=deployments, routes={"r": to_document(ROUTE)}).routes["r"]
    assert (read.strategy, read.max_targets) == ("lowest_cost", 2)
    assert read.balance == BalanceSettings(cost=0.0, latency=1.0)
    assert read.attempts == AttemptSettings(retries=0, backoff_base=0.0, idle_timeout=9.0)
    assert (read.hedge.percentile, read.hedge.min_delay) == (0.9, 0.07)


@pytest.mark.parametrize(
    "message", [PROVIDER, DEPLOYMENT, ROUTE], ids=lambda row: type(row).__name__
)
def test_documents_lose_nothing(message: Any) -> None:
    assert from_document(type(message), to_document(message)) == message


@pytest.mark.parametrize(
    ("message", "settings"),
    [
        (admin.Provider, ProviderSettings),
        (admin.Deployment, DeploymentSettings),
        (admin.Model, PolicySettings),
        (admin.Route, PolicySettings),
        (admin.Price, PriceSettings),
        (admin.Attempts, AttemptSettings),
        (admin.Balance, BalanceSettings),
        (admin.ProviderProbe, ProbeSettings),
        (admin.Tenant, TenantSettings),
        (admin.Project, ProjectSettings),
        (admin.Tier, TierSettings),
        (admin.Role, RoleSettings),
        (admin.Grant, GrantSettings),
        (admin.Binding, BindingSettings),
        (admin.CallerMatch, CallersSettings),
        (admin.Policy, AccessPolicySettings),
        (admin.Conditions, ConditionsSettings),
        (admin.TimeWindow, WindowSettings),
    ],
)
def test_fields_are_those_of_the_file(message: Any, settings: Any) -> None:
    of_message = {row.name for row in message.DESCRIPTOR.fields}
    metadata = {"name", "etag", "revision", "create_time", "update_time"}
    # The parser's records name what they read by annotations that say how.
    of_file = {row for row, kind in settings.__annotations__.items() if "Annotated" in str(kind)}
    assert of_message - metadata == of_file - metadata


def test_a_key_has_the_fields_of_the_file() -> None:
    of_message = {row.name for row in admin.Key.DESCRIPTOR.fields}
    # The hash is set by the router and told to nobody.
    assert set(KeySettings.__annotations__) - of_message == {"hash"}
    assert of_message - set(KeySettings.__annotations__) == METADATA - {"name"}


def test_every_kind_has_the_five_fields_in_front() -> None:
    for kind in KINDS.values():
        fields = [(row.number, row.name) for row in kind.message.DESCRIPTOR.fields][:5]
        assert fields == [
            (1, "name"),
            (2, "etag"),
            (3, "revision"),
            (4, "create_time"),
            (5, "update_time"),
        ]
        for field in (*kind.immutable, *kind.output_only, *(["tenant"] if kind.owned else [])):
            assert field in kind.message.DESCRIPTOR.fields_by_name


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("250ms", 250 * 10**6),
        ("1.5s", 1500 * 10**6),
        ("2m", 120 * 10**9),
        ("1h", 3600 * 10**9),
        ("1d", 86_400 * 10**9),
        (3, 3 * 10**9),
        (0.1, 10**8),
    ],
)
def test_durations_as_a_file_has_them(text: Any, nanos: int) -> None:
    read = from_document(admin.Provider, {"connect_timeout": text})
    assert read.connect_timeout.ToNanoseconds() == nanos


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2027-01-31", "2027-01-31T00:00:00Z"),
        ("2027-01-31T12:00:00Z", "2027-01-31T12:00:00Z"),
        ("2027-01-31T12:00:00+02:00", "2027-01-31T10:00:00Z"),
    ],
)
def test_moments_as_a_file_has_them(text: str, told: str) -> None:
    read = from_document(admin.Key, {"expires": text})
    assert read.expires.ToJsonString() == told


def test_short_forms_of_the_file() -> None:
    read = from_document(admin.Deployment, {"capabilities": ["a", "b"], "price": {"input": 1.25}})
    assert list(read.capabilities.replace) == ["a", "b"]
    assert read.price.input == "1.25"
    assert to_document(read) == {"capabilities": ["a", "b"], "price": {"input": "1.25"}}
    for text, hedge in ((True, admin.Hedge()), (False, admin.Hedge(off=True))):
        route = from_document(admin.Route, {"deployments": "d", "hedge": text})
        assert list(route.deployments) == ["d"]
        assert route.HasField("hedge")
        assert route.hedge == hedge
    assert to_document(from_document(admin.Route, {"hedge": False})) == {"hedge": False}
    policy = from_document(
        admin.Policy, {"effect": "deny", "when": {"labels": {"class": "secret"}, "region": "us"}}
    )
    assert policy.effect == admin.POLICY_EFFECT_DENY
    assert to_document(policy) == {
        "effect": "deny",
        "when": {"labels": {"class": ["secret"]}, "region": ["us"]},
    }


def test_large_numbers_stay_numbers() -> None:
    limit = admin.Limit(measure=admin.LIMIT_MEASURE_TOKENS, amount=2**53 + 1)
    assert to_document(limit) == {"measure": "tokens", "amount": 2**53 + 1}
    assert from_document(admin.Limit, to_document(limit)) == limit


def test_unknown_fields_and_null_are_passed_over() -> None:
    read = from_document(admin.Tenant, {"tier": None, "since": 1, "name": "x", "suspended": True})
    assert read == admin.Tenant(suspended=True)


@pytest.mark.parametrize(
    ("kind", "document", "path"),
    [
        (admin.Provider, {"connect_timeout": "soon"}, "connect_timeout"),
        (admin.Provider, {"connect_timeout": True}, "connect_timeout"),
        (admin.Provider, {"probe": "often"}, "probe"),
        (admin.Provider, {"probe": {"interval": []}}, "probe.interval"),
        (admin.Provider, {"headers": ["a"]}, "headers"),
        (admin.Provider, {"headers": {"a": {}}}, "headers.a"),
        (admin.Provider, {"residency": ["eu", {}]}, "residency[1]"),
        (admin.Deployment, {"priority": "first"}, "priority"),
        (admin.Deployment, {"priority": 2**40}, "priority"),
        (admin.Deployment, {"weight": True}, "weight"),
        (admin.Deployment, {"enabled": 1}, "enabled"),
        (admin.Route, {"strategy": "sideways"}, "strategy"),
        (admin.Key, {"expires": "tomorrow"}, "expires"),
        (admin.Policy, {"when": {"windows": [{"days": "mon"}, 7]}}, "when.windows[1]"),
    ],
)
def test_what_cannot_stand_there_is_named_and_not_quoted(
    kind: Any, document: dict[str, Any], path: str
) -> None:
    with pytest.raises(DocumentError) as caught:
        from_document(kind, document)
    assert caught.value.path == path
    for value in ("soon", "often", "sideways", "tomorrow", "first"):
        assert value not in str(caught.value)


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (
            admin.Provider(probe=admin.ProviderProbe(interval=Duration(seconds=10**12))),
            "probe.interval",
        ),
        (admin.Route(hedge=admin.Hedge(off=True, percentile=0.9)), "hedge"),
        (
            admin.Deployment(capabilities=admin.Capabilities(replace=["a"], add=["b"])),
            "capabilities",
        ),
        (admin.Limit(measure=99), "measure"),  # type: ignore[arg-type] # A newer client's.
    ],
)
def test_what_no_document_can_hold(message: Any, path: str) -> None:
    with pytest.raises(DocumentError) as caught:
        to_document(message)
    assert caught.value.path == path


@pytest.mark.parametrize("name", KINDS)
def test_whatever_a_kind_holds_comes_back_from_the_store(name: str) -> None:
    rng = random.Random(name)
    for _ in range(100):
        message = scribbled(rng, KINDS[name].message())
        body = orjson.dumps(to_document(message))
        assert from_document(KINDS[name].message, orjson.loads(body)) == message
