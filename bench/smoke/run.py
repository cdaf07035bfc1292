"""Serves the router with simulated providers, loads it with ghz, and fails on any error.

It proves that the installed program holds under concurrent calls; its figures are those of
the machine, shared by the load generator, the router and the simulated providers.

usage: python bench/smoke/run.py --ghz .tools/bin/ghz
"""

import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TRUNKLINE = Path(sys.executable).with_name("trunkline")
SERVICE = "trunkline.v1.InferenceService"
HOST = "127.0.0.1"
READY_WITHIN = 30.0
STOP_WITHIN = 30.0
GHZ_WITHIN = 300.0
CONCURRENCY = 50
CONNECTIONS = 4


class SmokeError(Exception):
    """The run failed; the message says how."""


@dataclass(frozen=True, slots=True)
class Load:
    """How often one method is called."""

    method: str
    payload: Path
    calls: int


LOADS = (
    Load("Route", HERE / "route.json", 20_000),
    Load("Generate", HERE / "generate.json", 5_000),
)


@dataclass(frozen=True, slots=True)
class Result:
    """What ghz measured; latencies in milliseconds."""

    load: Load
    succeeded: int
    problems: Sequence[str]
    calls_per_second: float
    p50: float
    p99: float


def free_ports(count: int) -> list[int]:
    """Ports that are free now, all different."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [made.getsockname()[1] for made in sockets]
    for made in sockets:
        made.close()
    return ports


def is_ready(ops_port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, ops_port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def wait_until_ready(server: subprocess.Popen[bytes], ops_port: int) -> None:
    """Raises SmokeError when the server ends, or is not ready in time."""
    deadline = time.monotonic() + READY_WITHIN
    while not is_ready(ops_port):
        if server.poll() is not None:
            raise SmokeError(f"the router ended with status {server.returncode} as it started")
        if time.monotonic() > deadline:
            raise SmokeError(f"the router was not ready within {READY_WITHIN:.0f} s")
        time.sleep(0.05)


@contextmanager
def served() -> Iterator[str]:
    """A router with simulated providers; gives its address and sees to its clean end."""
    grpc_port, ops_port, simulator_port = free_ports(3)
    command = [str(TRUNKLINE), "serve", "--listen", f"{HOST}:{grpc_port}"]
    command += ["--ops-listen", f"{HOST}:{ops_port}"]
    command += ["--simulator-listen", f"{HOST}:{simulator_port}"]
    # Nothing else of the environment: a provider's key in it would send real, billed calls.
    environment = {"PATH": os.environ.get("PATH", os.defpath)}
    with tempfile.TemporaryFile() as output:
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_until_ready(server, ops_port)
            yield f"{HOST}:{grpc_port}"
            stop(server)
        except BaseException:
            server.kill()
            server.wait()
            output.seek(0)
            sys.stderr.write(output.read().decode(errors="replace"))
            raise


def stop(server: subprocess.Popen[bytes]) -> None:
    """Raises SmokeError unless the server ends by itself, in time and without complaint."""
    server.send_signal(signal.SIGTERM)
    try:
        status = server.wait(STOP_WITHIN)
    except subprocess.TimeoutExpired as error:
        raise SmokeError(f"the router did not stop within {STOP_WITHIN:.0f} s") from error
    if status != 0:
        raise SmokeError(f"the router stopped with status {status}")


def measure(ghz: Path, address: str, load: Load) -> Result:
    """Runs ghz, which finds the method by reflection. Raises SmokeError if it cannot run."""
    command = [str(ghz), "--insecure", "--format", "json"]
    command += ["--call", f"{SERVICE}.{load.method}", "--data-file", str(load.payload)]
    command += ["--total", str(load.calls), "--concurrency", str(CONCURRENCY)]
    command += ["--connections", str(CONNECTIONS), address]
    run = subprocess.run(command, capture_output=True, check=False, timeout=GHZ_WITHIN)
    if run.returncode != 0:
        raise SmokeError(f"ghz failed on {load.method}: {run.stderr.decode(errors='replace')}")
    return read_report(load, json.loads(run.stdout))


def read_report(load: Load, report: dict[str, Any]) -> Result:
    """The figures of ghz's JSON report, whose durations are nanoseconds."""
    statuses = report.get("statusCodeDistribution") or {}
    errors = report.get("errorDistribution") or {}
    latencies = {
        entry["percentage"]: entry["latency"] / 1e6 for entry in report["latencyDistribution"] or ()
    }
    return Result(
        load=load,
        succeeded=statuses.get("OK", 0),
        problems=[f"{count} x {message}" for message, count in errors.items()],
        calls_per_second=report["rps"],
        p50=latencies.get(50, 0.0),
        p99=latencies.get(99, 0.0),
    )


def table(results: Sequence[Result]) -> str:
    """The figures as Markdown."""
    lines = [
        "| method | calls | errors | calls/s | p50 ms | p99 ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for result in results:
        calls = result.load.calls
        lines.append(
            f"| {result.load.method} | {calls:,} | {calls - result.succeeded:,} "
            f"| {result.calls_per_second:,.0f} | {result.p50:.1f} | {result.p99:.1f} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Load a served router and fail on any error.")
    parser.add_argument("--ghz", type=Path, required=True, help="the ghz program")
    ghz = parser.parse_args().ghz
    try:
        with served() as address:
            results = [measure(ghz, address, load) for load in LOADS]
    except (SmokeError, OSError, subprocess.TimeoutExpired) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(results))
    failed = [result for result in results if result.succeeded != result.load.calls]
    for result in failed:
        for problem in result.problems or ("calls are missing from the report",):
            print(f"error: {result.load.method}: {problem}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
