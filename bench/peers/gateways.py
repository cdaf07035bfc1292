"""The gateways that are compared with, started as their own documents advise for production.

Each is one process, as one worker of the router is. "Features on" is the most that each has
without a database: what that is stands in `features`.
"""

import hashlib
import json
import shutil
import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from bench.common import tools
from bench.common.child import BenchError, Running, accepts, answers, child, free_address
from bench.common.compare import Send
from bench.common.load import Load, Outcome
from bench.configs import UPSTREAM_KEY
from bench.payloads import prose
from bench.subjects import Bench

# LiteLLM refuses to start with a weak one, or with none.
_KEY = "sk-" + hashlib.sha256(b"the bench is the caller").hexdigest()


@dataclass(frozen=True, slots=True)
class Gateway:
    """One peer in one configuration."""

    name: str
    folder: str
    features: str
    start: Callable[[Bench], AbstractContextManager[Running]]
    headers: Callable[[Bench], Mapping[str, str]]
    # None: HTTP by the bench's own loader.
    send: Send | None = None


def missing() -> dict[str, str]:
    """Why a peer could not be installed, by its folder; everything before `make bench-peers`."""
    reasons = tools.PEERS / "missing.json"
    if not reasons.exists():
        return dict.fromkeys(("litellm", "portkey", "tensorzero", "bifrost"), "not installed")
    found: dict[str, str] = json.loads(reasons.read_text())
    return found


def _litellm(features: bool) -> Callable[[Bench], AbstractContextManager[Running]]:
    def start(bench: Bench) -> AbstractContextManager[Running]:
        address = free_address()
        upstream = f"http://{bench.upstream.address}/v1"
        parameters = {"model": "openai/bench", "api_base": upstream, "api_key": UPSTREAM_KEY}
        config = {
            "model_list": [{"model_name": "bench", "litellm_params": parameters}],
            "litellm_settings": {
                "set_verbose": False,
                "json_logs": True,
                "request_timeout": 60,
                **({"callbacks": ["prometheus"]} if features else {}),
            },
            "general_settings": {"master_key": _KEY},
            "router_settings": {"num_retries": 0},
        }
        path = bench.file(f"litellm-{address[-5:]}.yaml", json.dumps(config).encode())
        host, _, port = address.rpartition(":")
        program = str(tools.PEERS / "litellm" / "bin" / "litellm")
        command = [program, "--config", str(path), "--host", host, "--port", port]
        return child(
            "LiteLLM",
            [*command, "--num_workers", "1"],
            address,
            lambda: answers(address, "/health/liveliness"),
            env={
                "LITELLM_MODE": "PRODUCTION",
                "LITELLM_LOG": "ERROR",
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            },
            patience=120.0,
        )

    return start


def _portkey(_bench: Bench) -> AbstractContextManager[Running]:
    address = free_address()
    build = tools.PEERS / "portkey" / "node_modules" / "@portkey-ai" / "gateway" / "build"
    node = shutil.which("node")
    if node is None:
        raise BenchError("node was not found; Portkey runs on it")
    command = [node, str(build / "start-server.js"), f"--port={address.rpartition(':')[2]}"]
    return child(
        "Portkey",
        [*command, "--headless"],
        address,
        lambda: accepts(address),
        env={"NODE_ENV": "production"},
    )


def _portkey_target(bench: Bench) -> dict[str, str]:
    return {
        "provider": "openai",
        "custom_host": f"http://{bench.upstream.address}/v1",
        "api_key": UPSTREAM_KEY,
    }


def _portkey_plain(bench: Bench) -> Mapping[str, str]:
    target = _portkey_target(bench)
    return {
        "x-portkey-provider": target["provider"],
        "x-portkey-custom-host": target["custom_host"],
        "authorization": f"Bearer {UPSTREAM_KEY}",
    }


def _portkey_routed(bench: Bench) -> Mapping[str, str]:
    target = _portkey_target(bench)
    config = {
        "strategy": {"mode": "fallback"},
        "targets": [target, target],
        "retry": {"attempts": 1},
    }
    return {"x-portkey-config": json.dumps(config)}


def _tensorzero(bench: Bench) -> AbstractContextManager[Running]:
    address = free_address()
    config = f"""
[gateway]
observability.enabled = false
[models.bench]
routing = ["upstream"]
[models.bench.providers.upstream]
type = "openai"
model_name = "bench"
api_base = "http://{bench.upstream.address}/v1/"
api_key_location = "env::BENCH_UPSTREAM_KEY"
"""
    path = bench.file("tensorzero.toml", config.encode())
    program = tools.PEERS / "tensorzero" / "bin" / "python"
    driver = tools.ROOT / "bench" / "peers" / "tensorzero_driver.py"
    return child(
        "TensorZero",
        [str(program), str(driver), address, str(path)],
        address,
        lambda: accepts(address),
        env={
            "BENCH_UPSTREAM_KEY": UPSTREAM_KEY,
            "TENSORZERO_DISABLE_PSEUDONYMOUS_USAGE_ANALYTICS": "1",
        },
    )


def _order(address: str, load: Load) -> Outcome:
    """Has TensorZero's driver make the calls."""
    host, _, port = address.rpartition(":")
    order = {"calls": load.calls, "concurrency": load.concurrency, "prompt": prose(1024)}
    with socket.create_connection((host, int(port)), timeout=600) as connection:
        connection.sendall(json.dumps(order).encode() + b"\n")
        with connection.makefile("rb") as lines:
            report = json.loads(lines.readline())
    times = report["latencies_ms"]
    latency = {
        name: times[min(int(share * len(times)), len(times) - 1)]
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
        if times
    }
    return Outcome(report["ok"], report["errors"], report["seconds"], latency)


def _bearer(_bench: Bench) -> Mapping[str, str]:
    return {"authorization": f"Bearer {_KEY}"}


GATEWAYS = (
    Gateway("LiteLLM, features off", "litellm", "key", _litellm(False), _bearer),
    Gateway("LiteLLM, features on", "litellm", "key, metrics", _litellm(True), _bearer),
    Gateway("Portkey, features off", "portkey", "none", _portkey, _portkey_plain),
    Gateway("Portkey, features on", "portkey", "fallback, retry", _portkey, _portkey_routed),
    Gateway(
        "TensorZero embedded, features off",
        "tensorzero",
        "none: its own need a database; no server, so the caller's CPU counts too",
        _tensorzero,
        _bearer,
        _order,
    ),
)
