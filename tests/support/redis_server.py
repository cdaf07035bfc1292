"""Real Redis servers in temporary directories: one alone, a cluster of three, a sentinel."""

import socket
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tests.support.ports import free_port
from tests.support.server_process import LOOK_SECONDS, START_SECONDS, ServerProcess, find_program

SLOTS = 16384


def redis_program() -> Path | None:
    """The server's program, or None."""
    return find_program("redis-server", "usr/bin", "usr/local/bin", "opt/redis*/bin")


class RedisServer(ServerProcess):
    """A Redis that keeps nothing over a restart, unless `options` ask for it.

    `options` are those of the command line, such as "--requirepass", "secret".
    """

    def __init__(self, program: Path, *options: str) -> None:
        super().__init__()
        self._program = program
        self._options = options

    @property
    def url(self) -> str:
        """The URL of its database 0."""
        return f"redis://{self.address}/0"

    def command(self) -> Sequence[str]:
        return [
            str(self._program),
            *("--port", str(self.port), "--bind", self.host, "--dir", str(self.directory)),
            *("--save", "", "--appendonly", "no", "--io-threads", "1", *self._options),
        ]

    def is_ready(self) -> bool:
        # Told by the log: the port may speak TLS alone or want a password.
        return "Ready to accept connections" in self.log

    def ask(self, *words: str) -> str:
        """Sends one command and gives the text of its simple reply; an error reply fails."""
        return ask_redis(self.host, self.port, *words)

    def ask_many(self, *words: str) -> list[str]:
        """Sends one command and gives the texts of its reply, an array of bulk strings."""
        with ask_connection(self.host, self.port, *words) as replies:
            head = replies.readline().decode().rstrip("\r\n")
            assert head.startswith("*"), f"{words[0]}: {head}"
            found = []
            for _ in range(int(head[1:])):
                size = int(replies.readline()[1:])
                found.append(replies.read(size + 2)[:-2].decode())
            return found


class RedisSentinel(RedisServer):
    """A sentinel that watches one primary, alone, under the name "primary"."""

    def __init__(self, program: Path, primary: RedisServer) -> None:
        super().__init__(program)
        settings = self.directory / "sentinel.conf"
        settings.write_text(
            f"port {self.port}\nbind {self.host}\ndir {self.directory}\n"
            f"sentinel monitor primary {primary.host} {primary.port} 1\n"
            "sentinel down-after-milliseconds primary 300\n"
            "sentinel failover-timeout primary 2000\n"
        )
        # It rewrites its own settings.
        self.own(settings)

    def command(self) -> Sequence[str]:
        return [str(self._program), str(self.directory / "sentinel.conf"), "--sentinel"]

    def is_ready(self) -> bool:
        return "+monitor" in self.log


class RedisCluster:
    """A Redis Cluster of three primaries without replicas, each with a third of the slots."""

    def __init__(self, program: Path) -> None:
        self.nodes: list[RedisServer] = []
        self._buses: list[int] = []
        for _ in range(3):
            # By default the bus is 10,000 above the port, which may be no port at all.
            bus = free_port()
            self._buses.append(bus)
            words = ("--cluster-enabled", "yes", "--cluster-port", str(bus))
            self.nodes.append(RedisServer(program, *words, "--cluster-node-timeout", "2000"))

    @property
    def url(self) -> str:
        """The URL of its first node; clients find the others by asking it."""
        return f"redis://{self.nodes[0].address}"

    def start(self) -> None:
        """Starts the nodes, joins them, and waits until each serves the whole cluster."""
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait()
        share = -(-SLOTS // len(self.nodes))
        for number, node in enumerate(self.nodes):
            last = min(share * (number + 1), SLOTS) - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", str(share * number), str(last))
            # Without this all nodes begin in one epoch, and settle who owns what by and by.
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        for node, bus in zip(self.nodes[1:], self._buses[1:], strict=True):
            self.nodes[0].ask("CLUSTER", "MEET", node.host, str(node.port), str(bus))
        deadline = time.monotonic() + START_SECONDS
        while not all(self._whole(node) for node in self.nodes):
            assert time.monotonic() < deadline, [node.log for node in self.nodes]
            time.sleep(LOOK_SECONDS)

    def flush(self) -> None:
        """Empties every node."""
        for node in self.nodes:
            node.ask("FLUSHALL")

    def close(self) -> None:
        """Ends the nodes and removes their files."""
        for node in self.nodes:
            node.close()

    def _whole(self, node: RedisServer) -> bool:
        lines = node.ask("CLUSTER", "INFO").split()
        return {"cluster_state:ok", f"cluster_known_nodes:{len(self.nodes)}"} <= set(lines)


@contextmanager
def ask_connection(host: str, port: int, *words: str) -> Generator[BinaryIO]:
    """Sends one command, without a client of anyone's; what its reply is read from."""
    parts = [f"*{len(words)}\r\n"] + [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    with (
        socket.create_connection((host, port), timeout=START_SECONDS) as connection,
        connection.makefile("rb") as replies,
    ):
        connection.sendall("".join(parts).encode())
        yield replies


def ask_redis(host: str, port: int, *words: str) -> str:
    """One command and its simple or bulk reply."""
    with ask_connection(host, port, *words) as replies:
        head = replies.readline().decode().rstrip("\r\n")
        if head.startswith("$"):
            return replies.read(int(head[1:])).decode()
    assert head[:1] in {"+", ":"}, f"{words[0]}: {head}"
    return head[1:]
