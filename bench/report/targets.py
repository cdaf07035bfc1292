"""The project's targets, each beside the figure that the run found."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.scenarios.cache import HIT
from bench.scenarios.unary import ON

Figures = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """One promise. `read` finds the figure among a run's; KeyError where it was not measured."""

    promise: str
    bound: float
    unit: str
    scenario: str
    read: Callable[[Figures], float]
    # What a reader should know of the figure.
    remark: str = ""
    # The figure is to be at least the bound, and not at most.
    at_least: bool = False
    # The figure is of a peer, which may not be installed.
    of_peer: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target beside its figure; None means not measured in this run."""

    target: Target
    figure: float | None

    @property
    def word(self) -> str:
        """Met or not."""
        if self.figure is None:
            return "not measured"
        target = self.target
        missed = self.figure < target.bound if target.at_least else self.figure > target.bound
        return "**not met**" if missed else "met"


def _ratio(scenario: str, case: str, base: str) -> Callable[[Figures], float]:
    def read(figures: Figures) -> float:
        return float(figures[scenario][case]["ratios"][base]["median"])

    return read


def _value(scenario: str, *path: str) -> Callable[[Figures], float]:
    def read(figures: Figures) -> float:
        found: Any = figures[scenario]
        for key in path:
            found = found[key]
        return float(found)

    return read


TARGETS = (
    Target(
        "Route, CPU against a bare protobuf echo", 1.15, "x", "route",
        _ratio("route", ON, "bare echo, protobuf"),
    ),
    Target(
        "Route, CPU against a bare echo of bytes", 1.15, "x", "route",
        _ratio("route", ON, "bare echo, bytes"),
        "the strict reading: no message is parsed or made",
    ),
    Target(
        "Generate, CPU against the leanest bare pass-through", 1.35, "x", "generate",
        _ratio("generate", ON, "bare pass-through, httptools"),
        "the floor neither reads nor writes JSON",
    ),
    Target(
        "Generate, CPU against the leanest bare translation", 1.35, "x", "generate",
        _ratio("generate", ON, "bare translation, httptools"),
        "the floor turns the message into JSON and back",
    ),
    Target(
        "cache hit in memory, CPU against a bare protobuf echo", 1.2, "x", "cache",
        _ratio("cache", HIT, "bare echo, protobuf"),
        "with the same messages as the hit",
    ),
    Target(
        "cache hit in memory, CPU against a bare echo of bytes", 1.2, "x", "cache",
        _ratio("cache", HIT, "bare echo, bytes"),
        "the strict reading: no message is parsed or made",
    ),
    Target(
        "stream, CPU per chunk against a bare pass-through", 1.5, "x", "stream",
        _ratio("stream", ON, "bare pass-through"),
    ),
    Target(
        "stream, CPU per chunk against bare chunks without an upstream", 1.5, "x", "stream",
        _ratio("stream", ON, "bare chunks"),
        "the strict reading: the floor receives nothing",
    ),
    Target(
        "added latency at half load, p50", 1.0, "ms", "rates",
        _value("rates", "added_ms", "p50"),
    ),
    Target(
        "added latency at half load, p99", 5.0, "ms", "rates",
        _value("rates", "added_ms", "p99"),
    ),
    Target(
        "RSS of a worker with 1,000 open streams", 150.0, "MB", "streams",
        _value("streams", "1000", "worker_mb"),
    ),
    Target(
        "start to ready", 1.5, "s", "startup",
        _value("startup", "seconds", "median"),
    ),
    Target(
        "one decision, the dearest strategy, 10 deployments", 20.0, "µs", "decision",
        _value("decision", "dearest_us"),
    ),
    Target(
        "a decision at 10,000 deployments against 10, the worst strategy", 2.0, "x", "decision",
        _value("decision", "worst_ratio"),
    ),
    Target(
        "BatchRoute, decisions with two workers", 100_000.0, "/s", "batch",
        _value("batch", "BatchRoute, 2 workers", "decisions_per_second", "median"),
        "the load generator shares the cores", at_least=True,
    ),
    Target(
        "CPU per call of LiteLLM's proxy against Trunkline's, features on", 30.0, "x", "peers",
        _ratio("peers", "LiteLLM, features on", ON), at_least=True, of_peer=True,
    ),
    Target(
        "CPU per call of Portkey's gateway against Trunkline's, features on", 3.5, "x", "peers",
        _ratio("peers", "Portkey, features on", ON), at_least=True, of_peer=True,
    ),
    Target(
        "CPU per call of TensorZero embedded against Trunkline's, features on", 1.4, "x", "peers",
        _ratio("peers", "TensorZero embedded, features off", ON),
        "it serves nobody: no gRPC, and its own features are off for want of a database",
        at_least=True, of_peer=True,
    ),
)  # fmt: skip


def judge(figures: Figures) -> list[Verdict]:
    """Every target with what was found."""
    return [Verdict(target, _found(target, figures)) for target in TARGETS]


def _found(target: Target, figures: Figures) -> float | None:
    """The target's figure; None when its scenario did not run, or without the case it needs."""
    try:
        return target.read(figures)
    except KeyError:
        if target.of_peer or target.scenario not in figures:
            return None
        raise
