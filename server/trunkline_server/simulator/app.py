"""The simulator's HTTP server: its paths and its life cycle."""

import time
from collections.abc import Callable
from functools import partial
from typing import Self

import orjson
from aiohttp import web

from trunkline_server.simulator.anthropic import Anthropic
from trunkline_server.simulator.azure import Azure
from trunkline_server.simulator.bedrock import Bedrock
from trunkline_server.simulator.cohere import Cohere
from trunkline_server.simulator.counters import Counters
from trunkline_server.simulator.course import Course, State
from trunkline_server.simulator.dialect import Dialect, Endpoint
from trunkline_server.simulator.gemini import Gemini
from trunkline_server.simulator.models import MODELS
from trunkline_server.simulator.openai import OpenAI
from trunkline_server.simulator.replicate import Replicate
from trunkline_server.simulator.script import Script
from trunkline_server.simulator.vendor_error import VendorError
from trunkline_server.simulator.vertex import VertexAnthropic, VertexGemini

_MAX_BODY_BYTES = 64 * 1024 * 1024
# Calls that still run when the server stops are given this long, then cancelled.
_SHUTDOWN_SECONDS = 0.1


async def _run(
    request: web.Request, state: State, dialect: Dialect, endpoint: Endpoint
) -> web.StreamResponse:
    return await Course(state, dialect, request).run(endpoint)


async def _list(
    request: web.Request, state: State, dialect: Dialect, *, single: bool
) -> web.Response:
    state.number += 1
    headers = dialect.headers(state.number, None)
    try:
        dialect.key(request)
        model = None
        if single:
            name = request.match_info["model"]
            model = MODELS.get(name)
            if model is None:
                raise VendorError("model", param=name)
        body, status, more = dialect.listing(model), 200, headers
    except VendorError as refusal:
        error = dialect.error(refusal, request)
        body, status, more = error.body, error.status, {**headers, **error.headers}
    return web.Response(status=status, body=body, content_type="application/json", headers=more)


async def _unknown(request: web.Request, state: State, dialect: Dialect) -> web.Response:
    """The vendor's answer to a path or method it does not have."""
    state.number += 1
    state.counters.statuses[404] += 1
    message = f"Invalid URL ({request.method} {request.path})"
    error = dialect.error(VendorError("not_found", message), request)
    headers = {**dialect.headers(state.number, None), **error.headers}
    return web.Response(
        status=error.status, body=error.body, content_type=error.content_type, headers=headers
    )


async def _calls(_: web.Request, state: State) -> web.Response:
    # The connection that asks is not one of those asked about.
    body = orjson.dumps(state.counters.report(state.connections() - 1))
    return web.Response(body=body, content_type="application/json")


async def _reset(request: web.Request, state: State) -> web.Response:
    await request.read()
    state.clear()
    return web.Response(body=b"{}", content_type="application/json")


def create_app(state: State) -> web.Application:
    """The application with all dialects and the simulator's own endpoints."""
    app = web.Application(client_max_size=_MAX_BODY_BYTES)
    route = app.router.add_route
    route("GET", "/sim/calls", partial(_calls, state=state))
    route("POST", "/sim/reset", partial(_reset, state=state))
    dialects: tuple[Dialect, ...] = (
        *(OpenAI(), Anthropic(), Gemini(), Bedrock(), Cohere()),
        *(Azure(), VertexAnthropic(), VertexGemini()),
    )
    for dialect in dialects:
        for endpoint in dialect.endpoints:
            run = partial(_run, state=state, dialect=dialect, endpoint=endpoint)
            route("POST", endpoint.path, run)
        for path in dialect.listings:
            tell = partial(_list, state=state, dialect=dialect, single=path.endswith("{model}"))
            route("GET", path, tell)
        unknown = partial(_unknown, state=state, dialect=dialect)
        route("*", f"/{dialect.name}{{tail:.*}}", unknown)
    Replicate(state).add_to(app)
    return app


class Simulator:
    """A running simulator. `port` 0 takes any free port; `url` tells which it became.

    `defaults` is the script of calls that ask for nothing; `clock` counts the minutes of
    request limits, in seconds.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        defaults: Script | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._port = port
        self._state = State(defaults or Script(), clock)
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        """Begins to listen. Raises OSError when the address cannot be had."""
        self._state.closing = False
        # Handlers are cancelled when their caller goes: that is how a cancel is noticed.
        runner = web.AppRunner(
            create_app(self._state),
            handler_cancellation=True,
            access_log=None,
            shutdown_timeout=_SHUTDOWN_SECONDS,
        )
        await runner.setup()
        self._runner = runner
        self._state.connections = lambda: len(runner.server.connections) if runner.server else 0
        try:
            await web.TCPSite(runner, self._host, self._port, backlog=1024).start()
        except OSError:
            await self.stop()
            raise
        host, port = runner.addresses[0][:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def stop(self) -> None:
        """Stops listening and ends what still runs. Idempotent."""
        self._state.closing = True
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @property
    def counters(self) -> Counters:
        """What has been called so far; what GET /sim/calls reports."""
        return self._state.counters

    def clear(self) -> None:
        """Forgets all counts, strikes and caches, as POST /sim/reset does."""
        self._state.clear()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()
