"""A database server as a child process: started, killed, restarted, and gone with the tests."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from tests.support.mortal import mortal
from tests.support.ports import free_port

# A loaded machine starts slowly; a server that takes longer does not start at all.
START_SECONDS = 60.0
# Between two looks at a server that starts or ends.
LOOK_SECONDS = 0.01


class ServerProcess(ABC):
    """A server on a port of 127.0.0.1 with a directory of its own.

    `launch` and `wait` are what `start` does, apart, for tests that go on meanwhile. A server is
    launched from the main thread only: it ends with the thread that launched it, so that tests
    that are killed leave none behind.
    """

    host = "127.0.0.1"

    def __init__(self) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="trunkline-test-"))
        self._process: subprocess.Popen[bytes] | None = None
        # Postgres refuses to run as root.
        self._user = "" if os.geteuid() else "nobody"
        if self._user:
            shutil.chown(self.directory, self._user)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"

    @property
    def log(self) -> str:
        """What the server has written since it was launched."""
        path = self.directory / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, "the server was not launched"
        return self._process.pid

    @abstractmethod
    def command(self) -> Sequence[str]:
        """The program and its arguments."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether the launched server takes connections."""

    def start(self) -> None:
        """Starts the server, on its port and its data of before, and waits until it serves."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Starts the process and returns at once."""
        assert self._process is None, "the server runs already"
        with (self.directory / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                mortal(self.command(), self._user),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> None:
        """Blocks until the launched server takes connections."""
        assert self._process is not None, "the server was not launched"
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the server did not start:\n{self.log}")
            time.sleep(LOOK_SECONDS)

    def stop(self) -> None:
        """Ends the server in order; its clients are cut off. Idempotent."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Ends the server as a crash would. Idempotent."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freezes the server, its children too: it holds its connections and answers nothing."""
        for pid in (self.pid, *_children(self.pid)):
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a frozen server go on."""
        for pid in (self.pid, *_children(self.pid)):
            os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        """Ends the server for good and removes its files."""
        self.kill()
        shutil.rmtree(self.directory)

    def run(self, *command: str) -> None:
        """Runs a program as the server's user, in its directory."""
        done = subprocess.run(
            mortal(command, self._user),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == 0, done.stdout.decode(errors="replace")

    def own(self, path: Path) -> None:
        """Gives a file to the server's user alone, as servers demand of private keys."""
        path.chmod(0o600)
        if self._user:
            shutil.chown(path, self._user)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        children = _children(self._process.pid)
        # A frozen process would keep any other signal waiting.
        self.resume()
        self._process.send_signal(number)
        self._process.wait(START_SECONDS)
        self._process = None
        # Orphans hold what a successor needs: a killed Postgres' shared memory.
        deadline = time.monotonic() + START_SECONDS
        while any(_alive(child) for child in children):
            assert time.monotonic() < deadline, f"children outlive the server: {children}"
            time.sleep(LOOK_SECONDS)


def find_program(name: str, *directories: str) -> Path | None:
    """A program of PATH or of these directories, which may hold wildcards; the newest wins."""
    if found := shutil.which(name):
        return Path(found)
    matches = [path / name for pattern in directories for path in Path("/").glob(pattern)]
    matches = [path for path in matches if os.access(path, os.X_OK)]
    return max(matches, key=lambda path: path.stat().st_mtime, default=None)


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # The state stands behind the name, which may hold anything, in parentheses.
    return stat.rpartition(")")[2].split()[0] != "Z"
