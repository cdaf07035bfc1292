"""HOST:PORT addresses, and whether they are free."""

import socket
from collections.abc import Generator
from contextlib import contextmanager


def split_address(address: str) -> tuple[str, int]:
    """The host, without brackets, and the port."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _socket(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


def require_free(address: str) -> None:
    """Raises OSError if somebody listens there.

    Sharing a port is how workers divide the load, so a second router on the same port would
    not fail: it would silently take every other connection.
    """
    host, port = split_address(address)
    with _socket(host) as probe:
        probe.bind((host, port))


@contextmanager
def reserved(address: str) -> Generator[str]:
    """Holds a port for workers that share it, choosing one when the address says 0.

    The holding socket never listens, so no connection comes to it.
    """
    host, port = split_address(address)
    with _socket(host) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((host, port))
        bound = holder.getsockname()[1]
        yield f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"
