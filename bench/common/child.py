"""The servers that the bench starts, watches and ends."""

import http.client
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

HOST = "127.0.0.1"
_STOP_WITHIN = 30.0


class BenchError(Exception):
    """A part of the bench did not do what it should; the message says which and how."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that serves. `seconds_to_ready` counts from its start."""

    name: str
    pid: int
    address: str
    seconds_to_ready: float


def free_ports(count: int) -> list[int]:
    """Ports that are free now, all different."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [made.getsockname()[1] for made in sockets]
    for made in sockets:
        made.close()
    return ports


def free_address() -> str:
    """HOST:PORT that nobody listens on now."""
    return f"{HOST}:{free_ports(1)[0]}"


def accepts(address: str) -> bool:
    """Whether somebody listens."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def answers(address: str, path: str) -> bool:
    """Whether GET gives 200."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextmanager
def child(
    name: str,
    command: Sequence[str],
    address: str,
    ready: Callable[[], bool],
    *,
    env: Mapping[str, str] | None = None,
    core: int | None = None,
    patience: float = 60.0,
) -> Iterator[Running]:
    """Starts a server, waits until it is ready, and ends it. Raises BenchError.

    Nothing of the environment is inherited but PATH and HOME: a provider's key in it could
    send real, billed calls. With `core`, the server runs on that one.
    """
    inherited = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    taskset = shutil.which("taskset")
    pinned = [taskset, "-c", str(core)] if taskset and core is not None else []
    with tempfile.TemporaryFile() as output:
        begun = time.monotonic()
        process = subprocess.Popen(
            [*pinned, *command],
            env={**inherited, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

        def tail() -> str:
            output.seek(0)
            return output.read()[-3000:].decode(errors="replace")

        try:
            while not ready():
                if process.poll() is not None:
                    raise BenchError(f"{name} ended as it started:\n{tail()}")
                if time.monotonic() - begun > patience:
                    raise BenchError(f"{name} was not ready within {patience:.0f} s:\n{tail()}")
                time.sleep(0.01)
            yield Running(name, process.pid, address, time.monotonic() - begun)
            if process.poll() is not None:
                raise BenchError(f"{name} ended before its time:\n{tail()}")
        except BenchError as error:
            # What failed may have failed because of this server's end.
            if process.poll() is not None and name not in str(error):
                raise BenchError(f"{error}\n{name} has ended:\n{tail()}") from error
            raise
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Asks the process to stop, and kills it if it does not."""
    process.terminate()
    try:
        process.wait(_STOP_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
