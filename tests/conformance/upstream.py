"""The simulated vendors behind the router, watched: who called, and who went away."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self

from aiohttp import web

from trunkline_server.simulator.app import create_app
from trunkline_server.simulator.course import State
from trunkline_server.simulator.script import Script

# A router that has been told to stop does so at once; one that takes longer does not. Seconds.
PATIENCE = 10.0

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Upstream:
    """A simulator on a free port; `headers` are those of the calls, in order of arrival."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        # How many calls lost their caller before they had ended.
        self.gone = 0
        self._changed = asyncio.Condition()
        self.url = ""

    async def __aenter__(self) -> Self:
        state = State(Script())
        app = create_app(state)
        app.middlewares.append(self._watch)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._runner.cleanup()

    async def reach(self, *, calls: int = 0, gone: int = 0) -> None:
        """Waits until so many have called and so many gone. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(lambda: len(self.headers) >= calls and self.gone >= gone)

    @web.middleware
    async def _watch(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        await self._tell()
        try:
            return await handler(request)
        except (asyncio.CancelledError, ConnectionError):
            self.gone += 1
            # In a task of its own: this one is being cancelled.
            self._telling = asyncio.create_task(self._tell())
            raise

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
