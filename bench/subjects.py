"""What is measured, and how each is started: upstream, floors, and the router itself."""

import json
import sys
import urllib.request
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.common import tools
from bench.common.child import Running, accepts, answers, child, free_address
from bench.common.load import Generators
from bench.configs import Setup, environment, router_config


@dataclass(frozen=True, slots=True)
class Options:
    """How thoroughly to measure."""

    rounds: int = 5
    # Scales the number of calls.
    scale: float = 1.0
    quick: bool = False

    def calls(self, count: int, least: int = 50) -> int:
        """So many calls, scaled."""
        return max(round(count * self.scale), least)


@dataclass(frozen=True, slots=True)
class Bench:
    """What scenarios run on: the programs, the upstream that serves, a folder to write in."""

    options: Options
    generators: Generators
    upstream: Running
    scratch: Path

    def file(self, name: str, data: bytes) -> Path:
        """A file with these contents, for the programs that read one."""
        path = self.scratch / name
        path.write_bytes(data)
        return path

    def upstream_stats(self) -> dict[str, int]:
        """The upstream's counters, as its GET /stats gives them."""
        with urllib.request.urlopen(f"http://{self.upstream.address}/stats") as answer:
            stats: dict[str, int] = json.load(answer)
        return stats

    def floor(
        self, kind: str, *, body: bytes = b"", path: str = "/v1/chat/completions", vectors: int = 0
    ) -> AbstractContextManager[Running]:
        """A bare server of bench/floors."""
        address = free_address()
        command = [sys.executable, "-m", "bench.floors", kind, "--listen", address]
        command += ["--upstream", self.upstream.address, "--path", path]
        command += ["--vectors", str(vectors)]
        command += ["--body", str(self.file(f"floor-{address[-5:]}.json", body))]
        return child(
            f"floor {kind}",
            command,
            address,
            lambda: accepts(address),
            env={"PYTHONPATH": str(tools.ROOT)},
        )

    def router(
        self, setup: Setup, *, workers: int = 1, name: str = "trunkline"
    ) -> AbstractContextManager[Running]:
        """A served router."""
        address, ops = free_address(), free_address()
        own = _file_name(address)
        config = router_config(self.upstream.address, setup, own)
        path = self.file(f"{own}.yaml", config.encode())
        variables = environment(setup)
        if setup.state is not None and setup.state.postgres:
            tools.run_router("migrate", str(path), env=variables)
        command = [str(tools.router()), "serve", "--config", str(path), "--listen", address]
        command += ["--ops-listen", ops, "--workers", str(workers)]
        return child(name, command, address, lambda: answers(ops, "/readyz"), env=variables)

    def database_of(self, router: Running) -> Path:
        """The SQLite file of a router that keeps its ledger in one."""
        return self.scratch / f"{_file_name(router.address)}.db"


def _file_name(address: str) -> str:
    """How the files of the router at this address begin."""
    return f"router-{address.rpartition(':')[2]}"


def upstream(program: Path, core: int | None) -> AbstractContextManager[Running]:
    """The compiled upstream, on a core of its own where the machine has one to spare."""
    address = free_address()
    command = [str(program), "-listen", address]
    return child("upstream", command, address, lambda: answers(address, "/healthz"), core=core)
