"""The router's configurations, as YAML text."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.payloads import MODEL

KEY = "tk_the_bench_is_the_caller"
UPSTREAM_KEY = "sk-of-the-bench"
_DATABASE = "BENCH_DATABASE"
# What callers send when keys are on.
BEARER = {"authorization": f"Bearer {KEY}"}
_PRICE = {"input": "2", "output": "8", "cached_input": "0.5"}
_CHAT = ["chat", "streaming", "tools"]


# What no bench reaches, so that no call is denied.
_CALLS_A_SECOND = 1_000_000
_DOLLARS = "1000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is kept of calls, and where. Each store has a value for the router's own."""

    # A limit on each key's requests and a budget for each project: exact, leased, or "" for none.
    limit: str = "exact"
    budget: str = "exact"
    ledger: bool = True
    # The Redis that counts for limits and budgets; "" is the worker's memory.
    redis: str = ""
    # The Postgres that the ledger goes to; "" is a SQLite file beside the configuration.
    postgres: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What varies between the configurations of scenarios. The default has all features on, with
    the stores that need no server."""

    # Keys, traces of one call in a hundred to a sink, and logs at info; metrics are always on.
    features: bool = True
    # None: no limit, no budget, no ledger.
    state: State | None = State()
    # What the upstream does for each deployment, as the knobs of bench/upstream, in priority
    # order.
    deployments: Sequence[str] = ("",)
    strategy: str = "priority"
    hedge: dict[str, Any] | None = None
    # Keeps trying a deployment that fails, so that every call has to fall back.
    patient_breaker: bool = False
    max_calls: int = 10_000
    tls: tuple[Path, Path] | None = None
    # The section `cache`, and the Redis that it shares; None: no answers are kept.
    cache: dict[str, Any] | None = None
    cache_redis: str = ""


# Keys and state off, and logs of errors only.
BARE = Setup(features=False, state=None)
# Everything but limits, budgets and the ledger.
STATELESS = Setup(state=None)


def environment(setup: Setup) -> dict[str, str]:
    """The variables that a router of this setup reads."""
    found = {"BENCH_UPSTREAM_KEY": UPSTREAM_KEY}
    if setup.state is not None and setup.state.postgres:
        found[_DATABASE] = setup.state.postgres
    return found


def router_config(upstream: str, setup: Setup, name: str = "router") -> str:
    """One model, `bench`, whose deployments are the upstream with different knobs; one for
    embeddings, `bench-embed`; and the provider `any`, for models whose names carry knobs. Files
    of the router's own begin with `name`."""
    kinds = sorted(set(setup.deployments))
    providers = {knobs: f"upstream-{index}" for index, knobs in enumerate(kinds)}
    policy: dict[str, Any] = {
        "deployments": [f"bench-{index}" for index in range(len(setup.deployments))],
        "strategy": setup.strategy,
        "attempts": {"retries": 0},
    }
    if setup.hedge is not None:
        policy["hedge"] = setup.hedge
    config: dict[str, Any] = {
        "server": {
            # Whoever serves says where, or takes any free port.
            "listen": "127.0.0.1:0",
            "max_concurrent_calls": setup.max_calls,
            "max_upstream_connections": setup.max_calls,
        },
        "providers": {
            "any": _provider(upstream, ""),
            **{name: _provider(upstream, knobs) for knobs, name in providers.items()},
        },
        "deployments": [
            *(
                _deployment(index, providers[knobs])
                for index, knobs in enumerate(setup.deployments)
            ),
            {
                "name": "bench-embed",
                "provider": "any",
                "model": "bench-embed",
                "capabilities": ["embedding"],
                "price": {"input": "0.02"},
            },
        ],
        "models": {MODEL: policy},
        "telemetry": {"log_level": "info" if setup.features else "error"},
    }
    if setup.features:
        digest = hashlib.sha256(KEY.encode()).hexdigest()
        owner = {"tenant": "bench", "project": "bench"}
        config["keys"] = [{"name": "bench", "hash": f"sha256:{digest}", **owner}]
        config["telemetry"] |= {"otlp_endpoint": f"http://{upstream}", "trace_ratio": 0.01}
    if setup.patient_breaker:
        config["routing"] = {
            "breaker": {
                "consecutive_failures": 10_000,
                "error_rate": 1.0,
                "min_calls": 100_000,
            },
            "retry_budget": {"ratio": 10, "min_per_second": 100_000},
        }
    if setup.state is not None:
        config |= _kept(setup.state, name)
    if setup.cache is not None:
        config["cache"] = setup.cache
    if setup.cache_redis:
        config.setdefault("state", {})["redis"] = setup.cache_redis
    if setup.tls is not None:
        cert, key = setup.tls
        config["server"]["tls"] = {"cert": str(cert), "key": str(key)}
    # JSON is YAML.
    return json.dumps(config, indent=1)


def _kept(state: State, name: str) -> dict[str, Any]:
    """The sections of limits, budgets, the ledger and the stores."""
    config: dict[str, Any] = {"state": {}}
    if state.redis:
        config["state"]["redis"] = state.redis
    if state.ledger:
        # It has a password, which stands in no configuration.
        database = f"env:{_DATABASE}" if state.postgres else f"sqlite:///{name}.db"
        config["state"]["database"] = database
        config["ledger"] = {"journal": f"{name}-journal"}
    if state.limit:
        rate = {"measure": "requests", "scope": "key", "amount": _CALLS_A_SECOND, "per": "second"}
        config["limits"] = {"per-key": {**rate, "mode": state.limit}}
    if state.budget:
        budget = {"scope": "project", "amount": _DOLLARS, "mode": state.budget}
        config["budgets"] = {"per-project": budget}
    return config


def _deployment(index: int, provider: str) -> dict[str, Any]:
    return {
        "name": f"bench-{index}",
        "provider": provider,
        "model": "bench",
        "priority": index,
        "capabilities": _CHAT,
        "price": _PRICE,
    }


def _provider(upstream: str, knobs: str) -> dict[str, str]:
    prefix = f"/{knobs}" if knobs else ""
    return {
        "kind": "openai",
        "base_url": f"http://{upstream}{prefix}/v1",
        "api_key": "env:BENCH_UPSTREAM_KEY",
    }
