"""Portkey's own gateway, from npm, as a child process on a free port."""

import fcntl
import http.client
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.server_process import ServerProcess

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / ".tools/portkey/node_modules/@portkey-ai/gateway/build/start-server.js"


def installed() -> str:
    """Installs the gateway by the Makefile's rule, once; says what is missing, or nothing."""
    for program in ("node", "npm", "make"):
        if shutil.which(program) is None:
            return f"{program}, on which Portkey's gateway depends"
    folder = ROOT / ".tools"
    folder.mkdir(exist_ok=True)
    # Tests may run in several processes.
    with (folder / ".portkey.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            ["make", "--silent", "portkey"], cwd=ROOT, capture_output=True, text=True, check=False
        )
    if done.returncode:
        return f"Portkey's gateway, which npm could not install: {done.stderr.strip()[-300:]}"
    return ""


class PortkeyServer(ServerProcess):
    """The gateway. It keeps nothing and needs no account."""

    @property
    def url(self) -> str:
        """The base URL of its OpenAI-like API."""
        return f"http://{self.address}/v1"

    def command(self) -> Sequence[str]:
        return ("node", str(PROGRAM), f"--port={self.port}", "--headless")

    def is_ready(self) -> bool:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == http.client.OK
        except OSError:
            return False
        finally:
            connection.close()
