"""Settings of gateways: headers of deployments, headers that are told, hosts that are followed."""

import pytest

from trunkline_server.catalogue.compile import compile_snapshot
from trunkline_server.catalogue.known import known
from trunkline_server.catalogue.prices import PriceBook
from trunkline_server.settings import ConfigError, parse

ENV = {"KEY": "sk-test"}
BASE = """
providers:
  g: {{dialect: openai, base_url: 'https://g.example/v1', api_key: env:KEY{provider}}}
deployments:
  - {{provider: g, model: m, name: d, capabilities: [chat]{deployment}}}
"""


def compiled(provider: str = "", deployment: str = "") -> object:
    text = BASE.format(
        provider=f", {provider}" if provider else "",
        deployment=f", {deployment}" if deployment else "",
    )
    return compile_snapshot(parse(text, "t.yaml", ENV, known()), PriceBook(), now=0.0)


def test_everything_counts_in_the_version() -> None:
    versions = {
        compiled(provider, deployment).version  # type: ignore[attr-defined]  # a table
        for provider, deployment in (
            ("", ""),
            ("follow: [a.example]", ""),
            ("gateway: {trace_id: x-trace}", ""),
            ("", "headers: {x-a: b}"),
            ("", "headers: {x-a: c}"),
        )
    }
    assert len(versions) == 5


def test_headers_of_a_deployment() -> None:
    table = compiled("", "headers: {X-Portkey-Provider: openai}")
    assert table.headers_of == {"d": (("x-portkey-provider", "openai"),)}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("provider", "deployment", "told"),
    [
        ("", "headers: {x-a: 'env:KEY'}", "deployments[0].headers.x-a: holds a secret"),
        ("", "headers: {x-portkey-virtual-key: v}", "holds a secret"),
        ("", "headers: {'x a': b}", "is not the name of an HTTP header"),
        ("", 'headers: {x-a: "b\\r\\nc: d"}', "no header may hold"),
        ("", "headers: [a]", "write a map"),
        ("gateway: {trace: x}", "", "trace"),
        ("gateway: {trace_id: 'x y'}", "", "is not the name of an HTTP header"),
        ("follow: ['*.com']", "", "is no host such as"),
        ("follow: ['https://a.example']", "", "is no host such as"),
        ("follow: ['*']", "", "is no host such as"),
        ("follow: ['10.0.0.1']", "", "is no host such as"),
        ("follow: [localhost]", "", "is no host such as"),
    ],
)
def test_what_is_wrong_is_told(provider: str, deployment: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compiled(provider, deployment)
    assert told in str(caught.value)
