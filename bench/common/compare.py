"""Cases measured in turn, round after round, so that what else the machine does falls on all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bench.common.child import BenchError, Running
from bench.common.load import Load, Outcome
from bench.common.procfs import await_rest, cpu_seconds, machine_busy_seconds, resident_bytes
from bench.common.stats import Figure, figure

Send = Callable[[str, Load], Outcome]


@dataclass(frozen=True, slots=True)
class Case:
    """One server under one load. `units` is what a call counts for, such as its chunks; calls
    may fail where the load is `beyond` what the server is held to."""

    name: str
    server: Running
    send: Send
    load: Load
    units: int = 1
    beyond: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """One case after all rounds. CPU is that of the server's whole process tree."""

    case: Case
    cpu_us: Figure
    per_second: Figure
    latency: dict[str, Figure]
    first_token: dict[str, Figure]
    resident_mb: Figure
    # The share of calls that failed.
    failed: Figure
    # CPU of the whole machine for each call: server, upstream, load generator and bystanders.
    machine_us: Figure

    def as_json(self) -> dict[str, object]:
        """Everything, for the JSON report."""
        return {
            "cpu_us_per_unit": self.cpu_us.as_json(),
            "units_per_call": self.case.units,
            "calls_per_second": self.per_second.as_json(),
            "latency_ms": {name: each.as_json() for name, each in self.latency.items()},
            "first_token_ms": {name: each.as_json() for name, each in self.first_token.items()},
            "resident_mb": self.resident_mb.as_json(),
            "failed_share": self.failed.as_json(),
            "machine_cpu_us_per_call": self.machine_us.as_json(),
        }


@dataclass(frozen=True, slots=True)
class _Sample:
    cpu_us: float
    machine_us: float
    resident_mb: float
    outcome: Outcome


def compare(cases: Sequence[Case], rounds: int) -> dict[str, Measured]:
    """Measures every case in every round; each round begins with another case.

    A fifth of a round goes before, unmeasured: connections are made and caches filled.
    Raises BenchError when a call fails or is missing.
    """
    for case in cases:
        measure(replace(case, load=replace(case.load, calls=max(case.load.calls // 5, 1))))
    samples: dict[str, list[_Sample]] = {case.name: [] for case in cases}
    for number in range(rounds):
        turn = number % len(cases)
        for case in (*cases[turn:], *cases[:turn]):
            samples[case.name].append(measure(case))
    return {case.name: _gather(case, samples[case.name]) for case in cases}


def measure(case: Case) -> _Sample:
    """One round of one case."""
    before, busy = cpu_seconds(case.server.pid), machine_busy_seconds()
    outcome = case.send(case.server.address, case.load)
    all_spent = machine_busy_seconds() - busy
    await_rest(case.server.pid)
    spent = cpu_seconds(case.server.pid) - before
    if outcome.ok != case.load.calls and not (case.beyond and outcome.ok):
        raise BenchError(
            f"{case.name}: {outcome.ok} of {case.load.calls} calls succeeded: {outcome.errors}"
        )
    if case.load.stream and outcome.chunks != outcome.ok * case.units:
        raise BenchError(f"{case.name}: {outcome.chunks} chunks in {outcome.ok} streams")
    return _Sample(
        cpu_us=spent / (case.load.calls * case.units) * 1e6,
        machine_us=all_spent / case.load.calls * 1e6,
        resident_mb=sum(resident_bytes(case.server.pid).values()) / 1e6,
        outcome=outcome,
    )


def _gather(case: Case, samples: Sequence[_Sample]) -> Measured:
    outcomes = [sample.outcome for sample in samples]
    return Measured(
        case=case,
        cpu_us=figure([sample.cpu_us for sample in samples]),
        per_second=figure([outcome.per_second for outcome in outcomes]),
        latency=_percentiles([outcome.latency for outcome in outcomes]),
        first_token=_percentiles([outcome.first_token for outcome in outcomes]),
        resident_mb=figure([sample.resident_mb for sample in samples]),
        machine_us=figure([sample.machine_us for sample in samples]),
        failed=figure([1 - outcome.ok / case.load.calls for outcome in outcomes]),
    )


def _percentiles(rounds: Sequence[dict[str, float]]) -> dict[str, Figure]:
    """Each percentile that every round has."""
    shared = [name for name in rounds[0] if all(name in each for each in rounds)]
    return {name: figure([each[name] for each in rounds]) for name in shared}
