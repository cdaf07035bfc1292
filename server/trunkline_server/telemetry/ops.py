"""The operators' HTTP server: /metrics, /healthz, /readyz."""

import asyncio
from collections.abc import Callable, Mapping

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST


class OpsServer:
    """Serves metrics, liveness and readiness.

    /healthz answers 200 as long as the event loop turns. /readyz answers 200 while calls are
    wanted, and otherwise 503 with the reason that `unready` gives (None means ready). Either has
    what `notes` tells besides, such as what is away without keeping calls from being served.
    """

    def __init__(
        self,
        registry: Callable[[], CollectorRegistry],
        unready: Callable[[], str | None],
        notes: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """`registry` is asked at each scrape, since the registry over several processes' files
        has to be made anew each time."""
        self._registry = registry
        self._unready = unready
        self._notes = notes
        application = web.Application()
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False)

    async def start(self, host: str, port: int) -> int:
        """Listens and serves; returns the port. Raises OSError if it cannot."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, shutdown_timeout=1.0)
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
        reason = self._unready()
        if reason is None:
            return web.json_response({"status": "ready", **self._notes()})
        body = {"status": "not ready", "reason": reason, **self._notes()}
        return web.json_response(body, status=503)
