"""The two load generators: ghz for unary gRPC, and the bench's own for everything else.

Both send prepared bytes and report what they saw; neither knows what it measures.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.common.child import BenchError

SERVICE = "trunkline.v1.InferenceService"
_PERCENTILES = {50: "p50", 90: "p90", 95: "p95", 99: "p99"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is sent. Without a rate, `concurrency` calls are kept under way; with one, so many
    calls begin in a second, whether or not earlier ones have ended."""

    calls: int
    # The request: a serialised message for gRPC, JSON for HTTP.
    body: Path
    # The RPC's name for gRPC, the path for HTTP.
    method: str
    concurrency: int = 32
    connections: int = 4
    rate: float = 0.0
    stream: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 60.0
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a load generator saw. Times in milliseconds; percentiles of calls that succeeded."""

    ok: int
    errors: dict[str, int]
    seconds: float
    latency: dict[str, float]
    first_token: dict[str, float] = field(default_factory=dict)
    chunks: int = 0
    # The latencies at 0, 1, ... 100 %; of the bench's own generator only.
    quantiles: Sequence[float] = ()

    @property
    def per_second(self) -> float:
        """Answered calls in a second."""
        return self.ok / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Generators:
    """Where the programs are. `protoset` describes the contract to ghz."""

    ghz: Path
    loader: Path
    protoset: Path

    def send_ghz(self, address: str, load: Load) -> Outcome:
        """Unary or streamed gRPC by ghz. Raises BenchError if it cannot run."""
        command = [str(self.ghz), "--format", "json", "--protoset", str(self.protoset)]
        command += ["--skipTLS"] if load.tls else ["--insecure"]
        command += [
            "--call",
            f"{SERVICE}.{load.method}",
            "--binary-file",
            str(delimited(load.body)),
        ]
        command += ["--total", str(load.calls)]
        command += ["--concurrency", str(min(load.concurrency, load.calls))]
        command += ["--connections", str(min(load.connections, load.concurrency, load.calls))]
        command += ["--timeout", f"{load.timeout:g}s", "--metadata", json.dumps(dict(load.headers))]
        if load.rate:
            command += ["--async", "--rps", str(round(load.rate))]
        return _of_ghz(_run([*command, address], load))

    def send_grpc(self, address: str, load: Load) -> Outcome:
        """gRPC by the bench's own generator, which times first tokens."""
        return self._send(["-grpc", address, "-method", f"/{SERVICE}/{load.method}"], load)

    def send_http(self, address: str, load: Load) -> Outcome:
        """HTTP by the same generator."""
        return self._send(["-url", f"http://{address}{load.method}"], load)

    def replay(self, address: str, calls: Path, load: Load) -> Outcome:
        """gRPC calls at their recorded moments; `load` gives all but body and rate."""
        target = ["-grpc", address, "-method", f"/{SERVICE}/{load.method}"]
        return self._send([*target, "-replay", str(calls)], load)

    def _send(self, target: list[str], load: Load) -> Outcome:
        command = [str(self.loader), *target, "-body", str(load.body)]
        command += ["-total", str(load.calls)]
        command += ["-concurrency", str(load.concurrency), "-connections", str(load.connections)]
        command += ["-timeout", f"{load.timeout:g}s", "-rate", f"{load.rate:g}"]
        command += ["-stream"] if load.stream else []
        for name, value in load.headers.items():
            command += ["-header", f"{name}={value}"]
        report = _run(command, load)
        return Outcome(
            ok=report["ok"],
            errors=report["errors"],
            seconds=report["seconds"],
            latency=report["latency_ms"],
            first_token=report["first_token_ms"],
            chunks=report["chunks"],
            quantiles=report["quantiles_ms"],
        )


def _varint(value: int) -> bytes:
    """A number in protobuf's variable length."""
    groups = []
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def delimited(body: Path) -> Path:
    """The message with its length before it: ghz reads a bare one so too, if it can."""
    path = body.with_suffix(".delimited")
    message = body.read_bytes()
    path.write_bytes(_varint(len(message)) + message)
    return path


def _run(command: list[str], load: Load) -> dict[str, Any]:
    longest = 120 + load.timeout + (2 * load.calls / load.rate if load.rate else load.calls / 20)
    try:
        run = subprocess.run(command, capture_output=True, check=False, timeout=longest)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{command[0]} did not end within {longest:.0f} s") from error
    if run.returncode != 0:
        raise BenchError(f"{command[0]} failed: {run.stderr.decode(errors='replace')[-2000:]}")
    report: dict[str, Any] = json.loads(run.stdout)
    return report


def _of_ghz(report: dict[str, Any]) -> Outcome:
    """The figures of ghz's JSON report, whose durations are nanoseconds."""
    latency = {
        _PERCENTILES[entry["percentage"]]: entry["latency"] / 1e6
        for entry in report["latencyDistribution"] or ()
        if entry["percentage"] in _PERCENTILES
    }
    latency["max"] = report["slowest"] / 1e6
    return Outcome(
        ok=(report.get("statusCodeDistribution") or {}).get("OK", 0),
        errors=report.get("errorDistribution") or {},
        seconds=report["total"] / 1e9,
        latency=latency,
    )
