"""What is read from a configuration, and what is said of a wrong one."""

from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from textwrap import dedent

import pytest

from trunkline_server.settings import (
    NO_HEDGE,
    AttemptSettings,
    AuthSettings,
    CapabilitySettings,
    ConfigError,
    HedgeSettings,
    Known,
    ProviderKind,
    Settings,
    load,
    parse,
)

ENV = {"OPENAI_API_KEY": "sk-from-env", "OTHER": "other-value", "EMPTY": " ", "ODD": "a\nb"}
KNOWN = Known(
    kinds={
        "openai": ProviderKind("openai", "https://api.openai.com/v1", ("OPENAI_API_KEY",)),
        "anthropic": ProviderKind("anthropic", "https://api.anthropic.com", ("ANTHROPIC_API_KEY",)),
    },
    dialects={"openai", "anthropic"},
    price_providers={"openai", "anthropic"},
)


def read(text: str, *, base: Path | None = None, env: dict[str, str] | None = None) -> Settings:
    env = ENV if env is None else env
    return parse(dedent(text).lstrip("\n"), "trunkline.yaml", env, KNOWN, base=base)


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value).splitlines()


MINIMAL = "providers: {openai: {}}\n"


def test_the_least_configuration_has_every_default() -> None:
    settings = read(MINIMAL)
    assert settings.server.listen == "127.0.0.1:50051"
    assert settings.server.ops_listen == "127.0.0.1:9464"
    assert settings.server.max_request_bytes == 32 * 1024 * 1024
    assert settings.server.max_metadata_bytes == 16 * 1024
    assert settings.server.max_connection_age == 1800.0
    assert settings.server.default_deadline == 600.0
    assert settings.server.tls is None
    assert settings.server.reflection
    assert settings.routing.hedge == NO_HEDGE
    assert settings.routing.retry_budget.ratio == 0.2
    assert settings.telemetry.trace_ratio == 0.01
    assert (settings.deployments, settings.models, settings.routes, settings.keys) == (
        (),
        {},
        {},
        (),
    )


def test_a_full_configuration(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem", "ca.pem"):
        (tmp_path / name).write_text("pem")
    (tmp_path / "token").write_text("file-value\n")
    settings = read(
        """
        server:
          listen: "[::1]:8443"
          ops_listen: off
          workers: 4
          tls: {cert: cert.pem, key: key.pem, client_ca: ca.pem, require_client_cert: true}
          max_request_bytes: 1MiB
          max_upstream_connections: 20
          max_response_bytes: 2048
          drain_timeout: 250ms
          keepalive_time: 2m
          keepalive_timeout: 7
          default_deadline: 1.5
          max_connection_age: 1h
          reflection: false
        providers:
          openai:
            region: us-east
            residency: US
            probe: {interval: 10s}
          eu:
            kind: anthropic
            api_key: file:token
            base_url: https://eu.example.com/v1/
            headers: {X-Team: alpha, X-Trace-Token: env:OTHER}
            flags: {effort: budget, thinking_display: false, limit: 3}
            residency: [EU, de]
          local: {dialect: openai, base_url: "http://127.0.0.1:8080", auth: {header: X-Key}}
        deployments:
          - provider: openai
            model: gpt-5
            price: {input: "1.25", output: 10, cached_input: 0.125, per_request: "0.00000001"}
          - name: eu-sonnet
            provider: eu
            model: claude-sonnet-4-5
            weight: 0.5
            priority: 3
            quality: 0.8
            capabilities: {add: [Vision], remove: tools}
            context_tokens: 100000
            enabled: no
          - {provider: local, model: meta/llama, capabilities: [chat, streaming]}
        models:
          smart:
            deployments: [openai-gpt-5, eu-sonnet]
            strategy: balanced
            max_targets: 2
            balance: {cost: 1, latency: 0}
            attempts: {retries: 0, backoff_base: 50ms, attempt_timeout: 20s}
            hedge: {percentile: 0.9}
        routes:
          cheap: {deployments: local-meta-llama, hedge: false}
        routing:
          strategy: least_latency
          hedge: true
          breaker: {open_time: 3s}
        keys:
          - name: team-a
            hash: sha256:0123456789abcdef0123456789abcdef0123456789ABCDEF0123456789ABCDEF
            models: ["gpt-*"]
            expires: 2027-01-31
          - name: team-b
            hash: sha256:1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
            expires: 2027-01-31T12:00:00+02:00
        telemetry:
          log_format: console
          otlp_endpoint: http://127.0.0.1:4317
          otlp_headers: {authorization: env:OTHER}
        """,
        base=tmp_path,
    )
    server = settings.server
    assert (server.listen, server.ops_listen, server.workers) == ("[::1]:8443", "", 4)
    assert server.tls is not None
    assert server.tls.client_ca == tmp_path / "ca.pem"
    assert (server.max_request_bytes, server.max_response_bytes) == (1_048_576, 2048)
    assert server.max_upstream_connections == 20
    assert (server.drain_timeout, server.keepalive_time, server.keepalive_timeout) == (0.25, 120, 7)
    assert (server.default_deadline, server.max_connection_age) == (1.5, 3600)

    openai, eu, local = (settings.providers[name] for name in ("openai", "eu", "local"))
    assert openai.api_key is not None
    assert openai.api_key.reveal() == "sk-from-env"
    assert openai.residency == ("us",)
    assert openai.probe is not None
    assert openai.probe.interval == 10.0
    assert eu.api_key is not None
    assert eu.api_key.reveal() == "file-value"
    assert eu.base_url == "https://eu.example.com/v1"
    assert eu.headers["x-team"] == "alpha"
    token = eu.headers["x-trace-token"]
    assert not isinstance(token, str)
    assert token.reveal() == "other-value"
    assert eu.flags == {"effort": "budget", "thinking_display": False, "limit": 3}
    assert eu.residency == ("eu", "de")
    assert local.auth == AuthSettings(header="x-key", prefix="")
    assert local.api_key is None

    first, second, third = settings.deployments
    assert first.price is not None
    assert first.price.input == Decimal("1.25")
    assert first.price.cached_input == Decimal("0.125")
    assert first.price.per_request == Decimal("1E-8")
    assert first.price.reasoning is None
    assert second.capabilities == CapabilitySettings(add=("vision",), remove=("tools",))
    assert not second.enabled
    assert third.capabilities == CapabilitySettings(replace=("chat", "streaming"))

    smart = settings.models["smart"]
    assert smart.attempts == AttemptSettings(retries=0, backoff_base=0.05, attempt_timeout=20.0)
    assert smart.hedge == HedgeSettings(percentile=0.9, min_delay=0.05)
    assert settings.routes["cheap"].hedge == NO_HEDGE
    assert settings.routing.hedge == HedgeSettings()
    assert settings.routing.breaker.open_time == 3.0
    key, other = settings.keys
    assert key.hash == bytes.fromhex("0123456789abcdef" * 4)
    assert key.expires == datetime(2027, 1, 31, tzinfo=UTC).timestamp()
    assert other.expires == datetime(2027, 1, 31, 10, tzinfo=UTC).timestamp()
    assert settings.telemetry.log_format == "console"
    assert set(settings.files) == {
        tmp_path / name for name in ("cert.pem", "key.pem", "ca.pem", "token")
    }


CASES = Path(__file__).with_name("wrong_configurations.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("case", CASES.split("----\n"))
def test_wrong_configurations(case: str) -> None:
    """Each case is a text, an arrow, and exactly the lines that it is refused with."""
    text, _, expected = case.partition("->\n")
    found = problems(text)
    if expected.endswith("YAML: ...\n"):  # The rest is the YAML library's wording.
        assert found[0].startswith(expected.removesuffix("...\n"))
    else:
        assert found == expected.splitlines()


def test_every_problem_is_reported_at_once_in_the_order_of_the_lines() -> None:
    found = problems(
        """
        server:
          workers: -1
        providers:
          openai: {api_key: sk-plain-secret, regoin: eu}
        deployments:
          - {provider: nobody, model: a, weight: x}
        keys: [plain]
        """
    )
    assert [line.split(": ")[0] for line in found] == [
        f"trunkline.yaml:{line}" for line in (2, 4, 4, 6, 6, 7)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "providers: {openai: {api_key: TOPSECRET}}",
        "providers: {openai: {api_key: 'env:TOPSECRET with spaces'}}",
        "providers: {openai: {api_key: [TOPSECRET]}}",
        "providers: {openai: {headers: {x-api-key: TOPSECRET}}}",
        "providers: {openai: {headers: {cookie: TOPSECRET}}}",
        "providers: {openai: {base_url: 'https://me:TOPSECRET@example.com'}}",
        "keys: [TOPSECRET]",
        "keys: [{name: a, key: TOPSECRET}]",
        "keys: [{name: a, hash: TOPSECRET}]",
        "keys: TOPSECRET",
        "telemetry: {otlp_headers: {authorization: TOPSECRET}}",
    ],
)
def test_no_message_quotes_a_secret(text: str) -> None:
    if not text.startswith("providers"):
        text = MINIMAL + text
    assert "TOPSECRET" not in "".join(problems(text))


def test_secrets_hide_in_repr_and_str() -> None:
    settings = read("providers: {openai: {headers: {x-token: env:OTHER}}}")
    shown = repr(settings) + str(settings)
    assert "sk-from-env" not in shown
    assert "other-value" not in shown
    assert "Secret(env:OPENAI_API_KEY)" in shown


def test_the_usual_key_goes_to_no_other_host() -> None:
    settings = read("providers: {openai: {base_url: 'https://elsewhere.example.com/v1'}}")
    assert settings.providers["openai"].api_key is None


def test_settings_are_equal_when_their_values_and_secrets_are() -> None:
    assert read(MINIMAL) == read("# The same.\n" + MINIMAL)
    assert read(MINIMAL) != read(MINIMAL, env={"OPENAI_API_KEY": "sk-another"})


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:1", "[::1]:2", "127.9.9.9:3"])
def test_loopback_needs_no_keys(listen: str) -> None:
    assert read(f"{MINIMAL}server: {{listen: '{listen}'}}").server.listen == listen


def test_others_may_reach_a_router_that_has_keys_or_says_so() -> None:
    keys = f"keys: [{{name: a, hash: 'sha256:{'0' * 64}'}}]"
    assert read(f"{MINIMAL}server: {{listen: '0.0.0.0:1'}}\n{keys}").keys
    allowed = "server: {listen: '0.0.0.0:1', allow_unauthenticated: true}"
    assert read(MINIMAL + allowed).server.allow_unauthenticated


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("0", 0.0),
        ("1.5", 1.5),
        ("250ms", 0.25),
        ("5s", 5.0),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("2 s", 2),
    ],
)
def test_durations(written: str, seconds: float) -> None:
    assert read(f"{MINIMAL}server: {{drain_timeout: {written}}}").server.drain_timeout == seconds


def test_aliases_are_read_and_bounded() -> None:
    text = """
        providers:
          openai: &shared {region: eu}
          two: {kind: openai, region: eu, flags: &flags {a: 1}}
          three: {kind: openai, flags: *flags}
    """
    assert read(text).providers["three"].flags == {"a": 1}
    layers = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    layers += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert problems("\n".join(layers))[-1].endswith(
        "holds too many values; are aliases multiplied?"
    )
    assert problems("a: &a [*a]") == [
        "trunkline.yaml:1: is nested too deeply; does an alias name itself?"
    ]
    assert problems("a: " + "[" * 5000 + "]" * 5000)[0].startswith("trunkline.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"a: \x00", "is not valid YAML: "),
        (b"# " + b"x" * (16 * 2**20), "is larger than 16 MiB"),
    ],
    ids=["missing", "not-text", "control-character", "huge"],
)
def test_files_that_are_no_configuration(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "t.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path, ENV, KNOWN)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_usual_variable_that_no_header_may_hold() -> None:
    with pytest.raises(ConfigError) as caught:
        read(MINIMAL, env={"OPENAI_API_KEY": "sk-\nsecret"})
    assert str(caught.value).splitlines() == [
        "trunkline.yaml:1: providers.openai: the environment variable OPENAI_API_KEY holds "
        "characters that no header may hold",
    ]


def test_every_setting_is_documented() -> None:
    """Every section says what it is; keys are explained beside them."""
    seen: set[type] = set()

    def visit(value: object) -> None:
        if is_dataclass(value) and type(value) not in seen:
            seen.add(type(value))
            assert (type(value).__doc__ or "").strip(), type(value)
            for row in fields(value):
                visit(getattr(value, row.name))

    visit(read(MINIMAL))
    assert len(seen) > 6
