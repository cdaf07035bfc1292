"""From settings to the routing table."""

import os
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from textwrap import dedent

import pytest

from trunkline import v1
from trunkline_server.catalogue import clouds
from trunkline_server.catalogue.check import check
from trunkline_server.catalogue.compile import CompiledTable, compile_snapshot
from trunkline_server.catalogue.environment import from_environment
from trunkline_server.catalogue.known import known
from trunkline_server.catalogue.models import CAPABILITIES
from trunkline_server.catalogue.prices import PriceBook
from trunkline_server.providers.codec import OPTIONAL_FACULTIES, faculties
from trunkline_server.providers.dialects import DIALECTS
from trunkline_server.routing.pricing import Price
from trunkline_server.routing.rates import Rates
from trunkline_server.routing.snapshot import AttemptPolicy, BalanceWeights, HedgePolicy
from trunkline_server.settings import ConfigError, parse

NOW = 1_790_000_000.0
ENV = {"OPENAI_API_KEY": "sk-openai", "ANTHROPIC_API_KEY": "sk-ant", "LOCAL_TOKEN": "tok"}

CONFIG = """
providers:
  openai: {region: us-east, residency: [US]}
  anthropic: {header_timeout: 90s, flags: {thinking_display: false}}
  local:
    dialect: openai
    base_url: http://127.0.0.1:8080/v1
    headers: {x-team: alpha, x-token: env:LOCAL_TOKEN}
deployments:
  - {provider: openai, model: gpt-5}
  - {provider: openai, model: gpt-5-mini, name: mini-eu, region: eu-west, residency: eu}
  - {provider: anthropic, model: claude-sonnet-4-5, quality: 0.33, context_tokens: 150000}
  - provider: local
    model: llama
    price: {input: "0.10", output: "0.2"}
    weight: 3
    priority: 2
  - {provider: local, model: gpt-5, capabilities: [chat], enabled: false}
  - {provider: local, model: other, capabilities: {add: [tools], remove: streaming}}
models:
  smart:
    deployments: [anthropic-claude-sonnet-4-5, mini-eu]
    strategy: balanced
    max_targets: 2
    balance: {cost: 1}
    attempts: {retries: 3}
    hedge: {min_delay: 200ms}
routes:
  calm: {deployments: [local-llama, mini-eu], hedge: false}
routing:
  strategy: weighted
  attempts: {retries: 0, attempt_timeout: 30s}
  hedge: true
"""


@cache
def book() -> PriceBook:
    return PriceBook()


def compiled(text: str = CONFIG, env: dict[str, str] | None = None) -> CompiledTable:
    settings = parse(text, "t.yaml", ENV if env is None else env, known())
    return compile_snapshot(settings, book(), now=NOW)


def test_deployments_are_filled_from_provider_catalogue_and_price_table() -> None:
    table = compiled().snapshot
    first, mini, sonnet, llama, local, other = table.deployments
    assert [row.slot for row in table.deployments] == list(range(6))
    assert (first.name, first.model, first.provider_model) == ("openai-gpt-5", "gpt-5", "gpt-5")
    assert (first.region, first.residency) == ("us-east", frozenset({"us"}))
    assert (first.context_tokens, first.max_output_tokens) == (400_000, 128_000)
    assert {"chat", "tools", "reasoning"} <= first.capabilities
    assert first.price == Price.flat(
        Rates(
            input=Decimal("1.25"),
            output=Decimal(10),
            cached_input=Decimal("0.125"),
            search_unit=Decimal("0.01"),
        )
    )
    assert (mini.region, mini.residency, mini.model) == ("eu-west", frozenset({"eu"}), "smart")
    assert (sonnet.quality, sonnet.context_tokens) == (0.33, 150_000)
    assert sonnet.residency == frozenset()
    assert llama.price == Price.flat(Rates(input=Decimal("0.1"), output=Decimal("0.2")))
    assert (llama.weight, llama.priority) == (3.0, 2)
    assert llama.capabilities == {"chat", "streaming"}
    assert (local.price, local.enabled) == (None, False)
    assert local.capabilities == {"chat"}
    assert other.capabilities == {"chat", "tools"}


def test_models_and_routes() -> None:
    table = compiled().snapshot
    assert set(table.models) == {"smart", "gpt-5", "llama", "other"}
    assert [row.name for row in table.models["gpt-5"].members] == ["openai-gpt-5", "local-gpt-5"]
    smart, calm, plain = table.models["smart"], table.routes["calm"], table.models["llama"]
    assert [row.name for row in smart.members] == ["anthropic-claude-sonnet-4-5", "mini-eu"]
    assert (smart.name, calm.name) == ("", "calm")
    assert smart.strategy == v1.STRATEGY_BALANCED
    assert smart.max_targets == 2
    assert smart.balance == BalanceWeights(cost=1.0)
    assert smart.attempts == AttemptPolicy(
        retries=3, attempt_timeout=30.0, hedge=HedgePolicy(0.95, 0.2)
    )
    assert calm.strategy == v1.STRATEGY_WEIGHTED
    assert calm.attempts == AttemptPolicy(retries=0, attempt_timeout=30.0, hedge=None)
    assert plain.attempts.hedge == HedgePolicy()
    assert plain.max_targets == 3


def test_every_strategy_has_its_enum_value() -> None:
    for value in v1.Strategy.values():
        if value != v1.STRATEGY_UNSPECIFIED:
            word = v1.Strategy.Name(value).removeprefix("STRATEGY_").lower()
            routing = f"routing: {{strategy: {word}}}"
            table = compiled(f"providers: {{openai: {{}}}}\n{one('gpt-5')}{routing}")
            assert table.snapshot.models["gpt-5"].strategy == value


def one(model: str) -> str:
    return f"deployments: [{{provider: openai, model: {model}}}]\n"


def test_endpoints_carry_their_credentials_and_hide_them() -> None:
    endpoints = compiled().endpoints
    openai, anthropic, local = (endpoints[name] for name in ("openai", "anthropic", "local"))
    assert (openai.dialect, openai.base_url) == ("openai", "https://api.openai.com/v1")
    assert dict(openai.headers)["authorization"] == "Bearer sk-openai"
    assert dict(openai.headers)["content-type"] == "application/json"
    assert dict(anthropic.headers)["x-api-key"] == "sk-ant"
    assert "authorization" not in dict(anthropic.headers)
    assert anthropic.header_timeout == 90.0
    assert dict(local.headers) == {
        "content-type": "application/json",
        "user-agent": "trunkline",
        "x-team": "alpha",
        "x-token": "tok",
    }
    revealed = [[each.reveal() for each in known.secrets] for known in (openai, local)]
    assert revealed == [["sk-openai"], ["tok"]]
    assert dict(openai.render(["sk-new"])) == {
        **dict(openai.headers),
        "authorization": "Bearer sk-new",
    }
    shown = repr(compiled())
    assert "sk-" not in shown
    assert "tok'" not in shown


def test_a_configured_auth_replaces_the_row_s() -> None:
    provider = "{base_url: 'http://x', api_key: env:LOCAL_TOKEN, auth: {header: X}}"
    text = f"providers: {{openai: {provider}}}"
    headers = dict(compiled(text).endpoints["openai"].headers)
    assert headers["x"] == "tok"
    assert "authorization" not in headers


def test_flags_are_the_endpoint_s_over_the_model_s() -> None:
    flags_of = compiled().flags_of
    assert flags_of("anthropic", "claude-sonnet-4-5") == {
        "effort": "budget",
        "thinking_display": False,
    }
    assert flags_of("anthropic", "claude-opus-4-6") == {"thinking_display": False}
    assert flags_of("local", "llama") == {}
    own = "providers: {anthropic: {flags: {effort: adaptive}}}"
    assert compiled(own).flags_of("anthropic", "claude-sonnet-4-5") == {"effort": "adaptive"}


def test_a_model_is_spoken_to_as_the_catalogue_says() -> None:
    manner_of = compiled().manner_of
    for model in ("gpt-5-pro", "o3-pro-2025-06-10", "gpt-5.1-codex-max", "o4-mini-deep-research"):
        assert manner_of("openai", model) == ("openai_responses", True), model
    assert manner_of("openai", "gpt-5") == ("openai", True)
    assert manner_of("openai", "gpt-4o-mini") == ("openai", False)
    # Of a model that is not known nothing is assumed.
    assert manner_of("openai", "gpt-99") == ("openai", True)
    # A host of the same models that does not speak the dialect, and one that is told to speak it.
    assert manner_of("local", "gpt-5-pro") == ("openai", True)
    own = "providers: {openai: {dialect: openai_responses}}"
    assert compiled(own).manner_of("openai", "gpt-4o") == ("openai_responses", False)
    chat = "providers: {openai: {dialect: openai}}"
    assert compiled(chat).manner_of("openai", "gpt-5-pro") == ("openai", True)


def test_a_deployment_may_be_spoken_to_in_a_dialect_of_its_own() -> None:
    providers = "providers: {openai: {}}\ndeployments: "
    plain = compiled(providers + "[{provider: openai, model: gpt-5}]")
    own = compiled(providers + "[{provider: openai, model: gpt-5, dialect: openai_responses}]")
    assert plain.snapshot.deployments[0].dialect == ""
    assert own.snapshot.deployments[0].dialect == "openai_responses"
    assert own.version != plain.version
    with pytest.raises(ConfigError, match=r"deployments\[0\]\.dialect.*openai_responses"):
        compiled(providers + "[{provider: openai, model: gpt-5, dialect: openai_response}]")


def test_any_model_of_a_provider_can_be_passed_through() -> None:
    table = compiled()
    templates = table.snapshot.providers
    assert list(templates) == ["openai", "anthropic", "local"]
    assert [row.slot for row in templates.values()] == [6, 7, 8]
    assert table.health_names[6:] == ("openai/*", "anthropic/*", "local/*")
    assert len(table.health_names) == table.snapshot.slots == 9
    for name, template in templates.items():
        lacks = OPTIONAL_FACULTIES - faculties(DIALECTS[table.endpoints[name].dialect])
        assert template.capabilities == CAPABILITIES - lacks
    deployment = table.snapshot.resolve("openai/gpt-4o-mini").members[0]
    assert deployment.price == book().find("openai", "gpt-4o-mini")
    assert deployment.price is not None
    assert table.snapshot.resolve("local/anything").members[0].price is None


def test_equal_tables_have_equal_versions() -> None:
    assert compiled().version == compiled("# A comment.\n" + CONFIG).version
    assert compiled().version == compiled(CONFIG.replace('"0.10"', '"0.1"')).version


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("weight: 3", "weight: 4"),
        ('output: "0.2"', 'output: "0.3"'),
        ("retries: 3", "retries: 4"),
        ("strategy: balanced", "strategy: priority"),
        ("[anthropic-claude-sonnet-4-5, mini-eu]", "[mini-eu, anthropic-claude-sonnet-4-5]"),
        ("residency: eu", "residency: de"),
        ("capabilities: [chat]", "capabilities: [chat, tools]"),
        ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8081/v1"),
        ("thinking_display: false", "thinking_display: true"),
        ("hedge: false", "hedge: true"),
    ],
)
def test_other_tables_have_other_versions(old: str, new: str) -> None:
    assert old in CONFIG
    assert compiled().version != compiled(CONFIG.replace(old, new)).version


def test_a_credential_changes_the_endpoint_and_not_the_version() -> None:
    before, after = compiled(), compiled(env={**ENV, "OPENAI_API_KEY": "sk-new"})
    assert before.version == after.version
    assert dict(after.endpoints["openai"].headers)["authorization"] == "Bearer sk-new"


def test_versions_are_the_same_in_every_process() -> None:
    program = dedent(
        """
        import sys
        from trunkline_server.catalogue.compile import compile_snapshot
        from trunkline_server.catalogue.known import known
        from trunkline_server.catalogue.prices import PriceBook
        from trunkline_server.settings import parse
        settings = parse(sys.stdin.read(), "t.yaml", known=known())
        print(compile_snapshot(settings, PriceBook(), now=1.0).version)
        """
    )
    versions = {
        subprocess.run(
            [sys.executable, "-c", program],
            input=CONFIG,
            env={**os.environ, **ENV, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert versions == {compiled().version}


def test_from_environment() -> None:
    assert from_environment({}) is None
    assert from_environment({"OPENAI_API_KEY": " "}) is None
    settings = from_environment({"OPENAI_API_KEY": "sk-a", "GOOGLE_API_KEY": "g-b"})
    assert settings is not None
    assert list(settings.providers) == ["openai", "gemini"]
    table = compile_snapshot(settings, book(), now=NOW)
    assert dict(table.endpoints["gemini"].headers)["x-goog-api-key"] == "g-b"
    models = table.snapshot.models
    assert {"gpt-5", "gpt-4o-mini", "text-embedding-3-small", "gemini-2.5-pro"} <= set(models)
    assert models["gpt-5-pro"].members[0].capabilities >= {"chat", "tools", "reasoning"}
    assert not {"gpt-image-1", "whisper-1", "o3-deep-research", "gemini-2.5-flash-image"} & set(
        models
    )
    for deployment in table.snapshot.deployments:
        assert deployment.price is not None
        assert deployment.name == f"{deployment.provider}-{deployment.model}"
        assert deployment.capabilities


def test_the_more_specific_google_variable_counts() -> None:
    settings = from_environment({"GOOGLE_API_KEY": "g", "GEMINI_API_KEY": "m"})
    assert settings is not None
    key = settings.providers["gemini"].api_key
    assert key is not None
    assert key.reveal() == "m"


def test_a_key_that_no_header_may_hold() -> None:
    with pytest.raises(ConfigError) as caught:
        from_environment({"OPENAI_API_KEY": "sk-\nsecret"})
    assert str(caught.value) == (
        "the environment: the environment variable OPENAI_API_KEY holds characters that no "
        "header may hold"
    )


def test_check_sums_up(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(CONFIG)
    report = check(path, ENV, now=NOW)
    assert report.splitlines() == [
        f"{path}: OK, version {compiled().version}",
        "providers: 3",
        "  openai: openai at https://api.openai.com/v1",
        "  anthropic: anthropic at https://api.anthropic.com",
        "  local: openai at http://127.0.0.1:8080/v1",
        "deployments: 6",
        "  openai-gpt-5: openai gpt-5, in $1.25 out $10 per million tokens",
        "  mini-eu: openai gpt-5-mini, as smart, in $0.25 out $2 per million tokens",
        "  anthropic-claude-sonnet-4-5: anthropic claude-sonnet-4-5, as smart, in $3 out $15 per "
        "million tokens",
        "  local-llama: local llama, in $0.1 out $0.2 per million tokens, unknown model: chat, "
        "streaming",
        "  local-gpt-5: local gpt-5, unpriced, disabled",
        "  local-other: local other, unpriced, unknown model: chat, tools",
        "models: smart, gpt-5, llama, other",
        "routes: calm",
        "keys: none; callers need no key",
    ]
    assert "sk-" not in report


def test_check_sums_up_what_the_file_has_where_the_store_has_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(
        "state: {database: 'sqlite:///t.db', owns: [providers, deployments, keys]}\n"
        "models: {smart: {deployments: [stored]}}\n"
    )
    lines = check(path, ENV, now=NOW).splitlines()
    assert lines[:2] == [
        f"{path}: OK as far as it goes; with what the store owns it is checked at each start",
        "in the store: providers, deployments, keys",
    ]
    assert "models: smart" in lines
    assert "routes: none" in lines
    assert not [line for line in lines if line.startswith("keys")]


def test_a_drain_switches_off_and_is_part_of_the_version() -> None:
    settings = parse(dedent(CONFIG), "t.yaml", ENV, known())
    versions = {compiled().version}
    for drained, off in (
        ({"deployments/mini-eu"}, {"mini-eu", "local-gpt-5"}),
        ({"providers/local"}, {"local-llama", "local-gpt-5", "local-other"}),
    ):
        table = compile_snapshot(
            replace(settings, drained=frozenset(drained)), PriceBook(), now=NOW
        )
        rows = table.snapshot.deployments
        assert {row.name for row in rows if not row.enabled} == off
        (passed,) = table.snapshot.resolve("local/anything").members
        assert passed.enabled == ("providers/local" not in drained)
        versions.add(table.version)
    assert len(versions) == 3


def test_check_refuses(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("providers: {opnai: {}}")
    with pytest.raises(ConfigError, match="did you mean openai"):
        check(path, ENV)


CLOUDS = """
providers:
  vertex: {{region: {region}, flags: {{project: p-1}}, auth: {auth}}}
"""


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("europe-west4", "europe-west4-aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_a_region_makes_the_url(region: str, host: str) -> None:
    text = CLOUDS.format(region=region, auth="{google: {}}")
    table = compile_snapshot(parse(text, "test", {}, known()), PriceBook(), now=NOW)
    place = f"v1/projects/p-1/locations/{region}/publishers/google"
    assert table.endpoints["vertex"].base_url == f"https://{host}/{place}"


def test_a_region_that_is_none_is_told() -> None:
    text = CLOUDS.format(region="'europe west'", auth="{google: {}}")
    with pytest.raises(ConfigError, match=r"vertex\.region: is 'europe west', which cannot stand"):
        parse(text, "test", {}, known())


@pytest.mark.parametrize(
    ("auth", "library", "extra"),
    [
        ("{aws: {}}", "botocore", "aws"),
        ("{entra: {}}", "azure.identity", "azure"),
        ("{google: {}}", "google.auth", "gcp"),
    ],
)
def test_a_missing_library_is_told_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, auth: str, library: str, extra: str
) -> None:
    monkeypatch.setattr(clouds, "_installed", lambda module: module != library)
    settings = parse(CLOUDS.format(region="us-east1", auth=auth), "test", {}, known())
    with pytest.raises(ConfigError) as caught:
        compile_snapshot(settings, PriceBook(), now=NOW)
    way = auth.strip("{}: ")
    assert f"vertex.auth.{way}: needs the package {library}; install" in str(caught.value)
    assert str(caught.value).endswith(f"trunkline-server[{extra}]")
