"""The compiled programs: found, or built from bench/upstream with the Go toolchain."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from bench.common.child import BenchError

ROOT = Path(__file__).parents[2]
BIN = ROOT / ".tools" / "bin"
PEERS = ROOT / ".tools" / "peers"
UPSTREAM_SOURCE = ROOT / "bench" / "upstream"


def build() -> tuple[Path, Path]:
    """The upstream and the loader, built anew unless Go finds them fresh. Raises BenchError."""
    go = shutil.which("go")
    if go is None:
        raise BenchError("go was not found: install Go to build bench/upstream")
    upstream, loader = BIN / "bench-upstream", BIN / "bench-loader"
    BIN.mkdir(parents=True, exist_ok=True)
    for package, made in ((".", upstream), ("./cmd/loader", loader)):
        run = subprocess.run(
            [go, "build", "-o", str(made), package],
            cwd=UPSTREAM_SOURCE,
            env={**os.environ, "GOWORK": "off"},
            capture_output=True,
            check=False,
        )
        if run.returncode != 0:
            raise BenchError(f"go build {package}: {run.stderr.decode(errors='replace')}")
    return upstream, loader


def ghz() -> Path:
    """The ghz that the Makefile installs. Raises BenchError."""
    path = BIN / "ghz"
    if not path.exists():
        raise BenchError(f"{path.relative_to(ROOT)} is missing: run 'make tools'")
    return path


def router() -> Path:
    """The installed `trunkline`."""
    return ROOT / ".venv" / "bin" / "trunkline"


def run_router(*words: str, env: Mapping[str, str]) -> None:
    """Runs one of its commands that end. Raises BenchError when it fails."""
    run = subprocess.run([str(router()), *words], env=dict(env), capture_output=True, check=False)
    if run.returncode != 0:
        raise BenchError(f"trunkline {words[0]}: {run.stderr.decode(errors='replace')}")


def python() -> Path:
    """The interpreter that the router runs on; the floors run on it too."""
    return ROOT / ".venv" / "bin" / "python"
