"""The router of the proofs: its configuration, with limits, budgets and ledger on, and its run."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.process import RouterProcess, router_process

from bench.common import tools
from bench.configs import BEARER, KEY, UPSTREAM_KEY

__all__ = ["BEARER", "World"]

_PRICE = {"input": "2", "output": "8"}
# What the provider does for each model: the knobs of bench/upstream, one set a deployment.
_MODELS: Mapping[str, Sequence[str]] = {
    "quick": ["latency=2ms,tokens=16"],
    "long": ["latency=1ms,interval=3ms,tokens=40,chunk=2"],
    # Every stream breaks off in the middle.
    "breaks": ["interval=1ms,tokens=20,cut=1"],
    # Every second attempt fails, and is made again.
    "again": ["latency=1ms,tokens=8,fail=0.5"],
    # The first provider always fails.
    "elsewhere": ["fail=1", "latency=1ms,tokens=8"],
}
_LIMITS = {
    "calls": {"measure": "requests", "scope": "tenant", "amount": 10_000_000},
    "tokens": {"measure": "tokens", "scope": "project", "amount": 10**10, "mode": "leased"},
    "slots": {"measure": "concurrency", "scope": "key", "amount": 5_000},
}
_BUDGETS = {
    "exact": {"scope": "tenant", "amount": "100000", "period": "daily"},
    "leased": {"scope": "project", "amount": "100000", "mode": "leased"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One router's surroundings. `database` and `redis` are their addresses."""

    folder: Path
    upstream: str
    database: str
    redis: str
    # More of the sections `state` and `ledger`.
    state: Mapping[str, str] = field(default_factory=dict)
    ledger: Mapping[str, Any] = field(default_factory=dict)

    def config(self) -> Path:
        """Writes the configuration."""
        path = self.folder / "trunkline.yaml"
        # JSON is YAML.
        path.write_text(json.dumps(self._config(), indent=1))
        return path

    @property
    def environment(self) -> dict[str, str]:
        """What the configuration refers to."""
        return {
            "BENCH_UPSTREAM_KEY": UPSTREAM_KEY,
            "PROOF_DATABASE": self.database,
            "PROOF_REDIS": self.redis,
        }

    def command(self, *words: str) -> list[str]:
        """A command of `trunkline`, to be run in `environment`."""
        return [str(tools.router()), *words]

    def router(self, *, workers: int = 1) -> AbstractAsyncContextManager[RouterProcess]:
        """A router that serves."""
        arguments = ("--config", str(self.config()), "--workers", str(workers))
        return router_process(*arguments, env=self.environment)

    def _config(self) -> dict[str, Any]:
        knobs = {
            f"{model}-{number}": text
            for model, texts in _MODELS.items()
            for number, text in enumerate(texts)
        }
        digest = hashlib.sha256(KEY.encode()).hexdigest()
        return {
            "providers": {
                name: {
                    "kind": "openai",
                    "base_url": f"http://{self.upstream}/{text}/v1",
                    "api_key": "env:BENCH_UPSTREAM_KEY",
                }
                for name, text in knobs.items()
            },
            "deployments": [
                {
                    "name": name,
                    "provider": name,
                    "model": "bench",
                    "priority": number,
                    "capabilities": ["chat", "streaming"],
                    "max_output_tokens": 500,
                    "price": _PRICE,
                }
                for number, name in enumerate(knobs)
            ],
            "models": {
                model: {"deployments": [f"{model}-{number}" for number in range(len(texts))]}
                for model, texts in _MODELS.items()
            },
            "keys": [
                {
                    "name": "proofs",
                    "hash": f"sha256:{digest}",
                    "tenant": "acme",
                    "project": "search",
                }
            ],
            # Deployments that fail on purpose go on being tried.
            "routing": {
                "breaker": {
                    "consecutive_failures": 10_000,
                    "error_rate": 1.0,
                    "min_calls": 100_000,
                },
                "retry_budget": {"ratio": 10, "min_per_second": 100_000},
                "attempts": {"retries": 2},
            },
            "limits": _LIMITS,
            "budgets": _BUDGETS,
            "state": {"database": "env:PROOF_DATABASE", "redis": "env:PROOF_REDIS", **self.state},
            "ledger": {"journal": str(self.folder / "journal"), **self.ledger},
            "telemetry": {"log_level": "warning"},
            "server": {"drain_timeout": "5s"},
        }
