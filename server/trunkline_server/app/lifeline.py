"""How a process learns that it should stop: by signal, or because its parent is gone."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable


def stop_on_signals(stop: Callable[[], None]) -> None:
    """Calls `stop` on SIGTERM and SIGINT. A second one kills, as an impatient hand expects."""
    loop = asyncio.get_running_loop()

    def first(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, first, number)


def stop_with_parent(stop: Callable[[], None]) -> None:
    """Calls `stop` once standard input ends, which is when the parent has closed it or died."""
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()

    def readable() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            stop()

    loop.add_reader(descriptor, readable)


def on_hangup(reload: Callable[[], None]) -> None:
    """Calls `reload` on SIGHUP."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
