"""The operators' HTTP server: /metrics, /healthz, /readyz, and documents."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from trunkline_server.telemetry.conditions import conditions


class OpsServer:
    """Serves metrics, liveness and readiness.

    /healthz answers 200 as long as the event loop turns. /readyz answers 200 while calls are
    wanted, and otherwise 503 with the reason: the one that `unready` gives (None means ready), or
    a condition that is among the `fatal` ones. Either has what is amiss without keeping calls from
    being served: the conditions that metrics tell of, and what `notes` add to them.
    """

    def __init__(
        self,
        registry: Callable[[], CollectorRegistry],
        unready: Callable[[], str | None],
        notes: Callable[[], Mapping[str, str]] = dict,
        fatal: Collection[str] = (),
        documents: Mapping[str, Callable[[], str]] = MappingProxyType({}),
    ) -> None:
        """`registry` is asked at each scrape, since the registry over several processes' files
        has to be made anew each time. `documents` are texts by their paths."""
        self._registry = registry
        self._unready = unready
        self._notes = notes
        self._fatal = fatal
        application = web.Application()
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        self._documents = documents
        for path in documents:
            application.router.add_get(path, self._document)
        self._runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=1.0
        )

    async def start(self, host: str, port: int) -> int:
        """Listens and serves; returns the port. Raises OSError if it cannot."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        _, bound, *_ = self._runner.addresses[0]
        return int(bound)

    async def stop(self) -> None:
        """Stops listening."""
        await self._runner.cleanup()

    async def _metrics(self, _request: web.Request) -> web.Response:
        # Reading a large registry takes milliseconds that calls should not wait for.
        body = await asyncio.to_thread(generate_latest, self._registry())
        return web.Response(body=body, headers={"content-type": CONTENT_TYPE_LATEST})

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _readyz(self, _request: web.Request) -> web.Response:
        amiss = await asyncio.to_thread(conditions, self._registry())
        reason = self._unready() or next(
            (text for name, text in amiss.items() if name in self._fatal), None
        )
        body: dict[str, object] = {"status": "ready" if reason is None else "not ready"}
        if reason is not None:
            body["reason"] = reason
        if amiss:
            body["degraded"] = list(amiss.values())
        return web.json_response(body | dict(self._notes()), status=200 if reason is None else 503)

    async def _document(self, request: web.Request) -> web.Response:
        # The first to ask waits for it to be made; calls do not wait.
        text = await asyncio.to_thread(self._documents[request.path])
        return web.Response(text=text, content_type="application/yaml")
