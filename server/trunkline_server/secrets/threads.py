"""Vendors' blocking clients, in few threads and with a hard limit to each call's time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from trunkline_server.secrets.ports import SecretUnavailableError

T = TypeVar("T")


class BlockingPool:
    """At most `workers` blocking calls at a time, each given up after `timeout` seconds.

    A thread cannot be stopped: a call that is given up keeps its thread until the client's
    own socket timeouts end it, which is why every source sets those too. Calls that find no
    thread wait within their time. The pool serves every event loop that asks.
    """

    def __init__(self, workers: int = 4, timeout: float = 10.0) -> None:
        self.timeout = timeout
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="secrets")

    async def run(self, what: str, call: Callable[[], T]) -> T:
        """The call's result. Raises what it raises, and SecretUnavailableError when time is up;
        `what` is the reference."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._executor, call)
        try:
            async with asyncio.timeout(self.timeout):
                return await future
        except TimeoutError:
            # The client's own timeout may come first, as the same class.
            raise SecretUnavailableError(f"{what}: no answer within {self.timeout:g} s") from None

    def close(self) -> None:
        """Takes no further calls; those that have not begun are dropped."""
        self._executor.shutdown(wait=False, cancel_futures=True)
