"""`make bench-peers`: tries once to install each gateway that the router is compared with.

Everything goes to .tools/peers, away from the router's own packages. What cannot be had is
written to .tools/peers/missing.json with the reason, which the report repeats.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bench.common import tools

_WITHIN = 900.0


@dataclass(frozen=True, slots=True)
class Package:
    """One gateway, and the commands that install it into its own folder."""

    name: str
    commands: Sequence[Sequence[str]]


def _python(name: str, *requirements: str) -> Package:
    folder = tools.PEERS / name
    pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    return Package(name, [[sys.executable, "-m", "venv", str(folder)], [*pip, *requirements]])


_NPM = ("npm", "install", "--no-audit", "--no-fund", "--loglevel", "error")

PACKAGES = (
    # The client library is what its metrics ask for.
    _python("litellm", "litellm[proxy]==1.106.2", "prometheus-client"),
    _python("tensorzero", "tensorzero==2026.6.0"),
    Package(
        "portkey",
        [[*_NPM, "--prefix", str(tools.PEERS / "portkey"), "@portkey-ai/gateway@1.15.2"]],
    ),
    Package(
        "bifrost", [["go", "install", "github.com/maximhq/bifrost/transports/bifrost-http@latest"]]
    ),
)


def install(package: Package) -> str | None:
    """Installs it; gives the reason if that fails."""
    environment = {**os.environ, "GOBIN": str(tools.PEERS / package.name)}
    for command in package.commands:
        if shutil.which(command[0]) is None:
            return f"{command[0]} was not found"
        try:
            run = subprocess.run(
                command,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=_WITHIN,
            )
        except subprocess.TimeoutExpired:
            return f"{command[0]} took longer than {_WITHIN:.0f} s"
        if run.returncode != 0:
            lines = [line.strip() for line in run.stderr.splitlines() if line.strip()]
            return f"{command[0]}: {' '.join(lines[-2:]) or 'failed'}"
    return None


def main() -> int:
    tools.PEERS.mkdir(parents=True, exist_ok=True)
    missing = {}
    for package in PACKAGES:
        print(f"{package.name}: installing", flush=True)
        reason = install(package)
        if reason is not None:
            missing[package.name] = reason
        print(f"{package.name}: {reason or 'installed'}", flush=True)
    (tools.PEERS / "missing.json").write_text(json.dumps(missing, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
