"""Options: the environment's, what is refused, and what the channel is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from trunkline import AsyncClient, Client, v1
from trunkline._options import ClientOptions, from_environment
from trunkline._requests import text_of
from trunkline.v1 import inference_service_pb2


def test_an_empty_environment_gives_the_defaults() -> None:
    options = from_environment({})
    assert options.target == "127.0.0.1:50051"
    assert options.timeout == 60
    assert options.api_key is None
    assert options.tls is None
    assert options.credentials() is None


def test_the_environment_is_read(tmp_path: Path) -> None:
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_text(name)
    options = from_environment(
        {
            "TRUNKLINE_TARGET": "dns:///router:50051",
            "TRUNKLINE_API_KEY": "tl-secret",
            "TRUNKLINE_TIMEOUT": "2.5",
            "TRUNKLINE_CA_FILE": str(tmp_path / "ca"),
            "TRUNKLINE_CERT_FILE": str(tmp_path / "cert"),
            "TRUNKLINE_KEY_FILE": str(tmp_path / "key"),
            "TRUNKLINE_SERVER_NAME": "router.internal",
        }
    )
    assert options.target == "dns:///router:50051"
    assert options.timeout == 2.5
    assert options.call_metadata(None) == (("authorization", "Bearer tl-secret"),)
    assert options.tls is not None
    assert options.tls.root_certificates == b"ca"
    assert options.tls.certificate_chain == b"cert"
    assert options.tls.private_key == b"key"
    assert dict(options.channel_arguments())["grpc.ssl_target_name_override"] == "router.internal"
    assert "tl-secret" not in repr(options)


def test_tls_by_the_systems_roots() -> None:
    tls = from_environment({"TRUNKLINE_TLS": "true"}).tls
    assert tls is not None
    assert tls.root_certificates is None


def test_empty_variables_count_as_unset() -> None:
    names = ("TARGET", "API_KEY", "TLS", "TIMEOUT", "CA_FILE")
    options = from_environment({f"TRUNKLINE_{name}": "" for name in names})
    assert options.target == "127.0.0.1:50051"
    assert options.api_key is None
    assert options.tls is None


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"TRUNKLINE_TIMEOUT": "soon"}, "TRUNKLINE_TIMEOUT"),
        ({"TRUNKLINE_TIMEOUT": "-1"}, "TRUNKLINE_TIMEOUT"),
        ({"TRUNKLINE_TLS": "perhaps"}, "TRUNKLINE_TLS"),
        ({"TRUNKLINE_CERT_FILE": "only-this"}, "TRUNKLINE_KEY_FILE"),
    ],
)
def test_a_wrong_variable_is_named(environ: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Client.from_environment(environ)
    with pytest.raises(ValueError, match=named):
        AsyncClient.from_environment(environ)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"missing\.pem"):
        Client.from_environment({"TRUNKLINE_CA_FILE": str(tmp_path / "missing.pem")})


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"target": ""}, "target"),
        ({"api_key": ""}, "api_key"),
        ({"api_key": "tl-secret\n"}, "api_key"),
        ({"api_key": "tl-secrét"}, "api_key"),
        ({"api_key": "tl-secret", "metadata": {"Authorization": "x"}}, "authorization"),
        ({"timeout": 0}, "timeout"),
    ],
)
def test_wrong_options_are_refused_without_the_secret(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named) as caught:
        Client(**options)
    assert "tl-secr" not in str(caught.value)


def test_only_what_costs_nothing_has_a_retry_policy() -> None:
    arguments = dict(ClientOptions().channel_arguments())
    config = json.loads(str(arguments["grpc.service_config"]))
    (method,) = config["methodConfig"]
    service = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"]
    names = ("Route", "BatchRoute", "CountTokens", "ListModels", "ListProviderHealth")
    free = [service.methods_by_name[name] for name in names]
    assert method["name"] == [{"service": service.full_name, "method": row.name} for row in free]
    assert method["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
    assert config["loadBalancingConfig"] == [{"round_robin": {}}]
    assert "healthCheckConfig" not in config


def test_the_callers_channel_options_stand_above_ours() -> None:
    options = ClientOptions(channel_options={"grpc.keepalive_time_ms": 7, "grpc.x": "y"})
    arguments = dict(options.channel_arguments())
    assert arguments["grpc.keepalive_time_ms"] == 7
    assert arguments["grpc.x"] == "y"
    assert arguments["grpc.keepalive_timeout_ms"] == 20_000


def test_keepalive_stays_within_what_grpc_servers_tolerate() -> None:
    # gRPC servers answer pings more frequent than 5 minutes, while no data flows, with
    # GOAWAY and too_many_pings: github.com/grpc/grpc, doc/keepalive.md.
    assert int(dict(ClientOptions().channel_arguments())["grpc.keepalive_time_ms"]) >= 300_000


async def test_an_async_client_can_be_made_before_its_loop() -> None:
    client = AsyncClient("127.0.0.1:1")
    await client.close()
    with pytest.raises(ValueError, match="closed"):
        await client.route()


def test_text_leaves_out_what_is_no_text() -> None:
    message = v1.Message(
        parts=[
            v1.Part(reasoning=v1.Reasoning(text="hm")),
            v1.Part(text="a"),
            v1.Part(tool_call=v1.ToolCall(name="f")),
            v1.Part(text="b"),
        ]
    )
    assert text_of(message) == "ab"
    assert text_of(v1.GenerateResponse(message=message)) == "ab"
    assert text_of(v1.GenerateResponse()) == ""
