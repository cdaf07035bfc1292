"""What the figures were measured on and with: without it they say nothing."""

import os
import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.common import tools

_PACKAGES = ("grpcio", "uvloop", "protobuf", "orjson", "httptools", "aiohttp", "prometheus-client")


def describe() -> dict[str, str]:
    """The machine, the versions and the state of the tree."""
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": _memory(),
        "kernel": f"{platform.system()} {platform.release()}",
        "load before the run": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        "Python": platform.python_version(),
    }
    facts |= {name: _version(name) for name in _PACKAGES}
    facts["Go"] = _first_line("go", "version").removeprefix("go version ")
    facts["ghz"] = _first_line(str(tools.BIN / "ghz"), "--version")
    facts["commit"] = _first_line("git", "-C", str(tools.ROOT), "rev-parse", "--short=12", "HEAD")
    changed = _output("git", "-C", str(tools.ROOT), "status", "--porcelain")
    facts["uncommitted changes"] = str(len(changed.splitlines()))
    return facts


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or "unknown"
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()


def _memory() -> str:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return f"{pages * size / 2**30:.0f} GiB"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return "not found"
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return (run.stdout or run.stderr).strip()


def _first_line(*command: str) -> str:
    return next(iter(_output(*command).splitlines()), "unknown")
