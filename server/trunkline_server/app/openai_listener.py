"""The OpenAI-compatible face's listener, as the configuration wants it."""

import asyncio
import ssl

import structlog

from trunkline_server.app.addresses import split_address
from trunkline_server.clock import Clock
from trunkline_server.openai_face.ports import Door, Inference, Models
from trunkline_server.openai_face.server import OpenAIFace
from trunkline_server.settings import Settings
from trunkline_server.settings.schema import TlsSettings


class OpenAIListener:
    """Listens at server.openai_listen; does nothing where that is off."""

    def __init__(
        self, settings: Settings, inference: Inference, models: Models, door: Door, clock: Clock
    ) -> None:
        self._settings = settings
        self._face = OpenAIFace(
            inference,
            models,
            door,
            clock,
            max_request_bytes=lambda: self._settings.server.max_request_bytes,
            patience=settings.server.drain_timeout,
        )
        self._listens = False

    def reload(self, settings: Settings) -> None:
        """Takes over a configuration; where to listen stays."""
        self._settings = settings

    async def start(self) -> int:
        """Listens and serves; returns the port, 0 where the face is off. Raises OSError."""
        server = self._settings.server
        if not server.openai_listen:
            return 0
        host, port = split_address(server.openai_listen)
        tls = None if server.tls is None else _Renewed(server.tls).context
        self._listens = True
        return await self._face.start(host, port, tls, reuse_port=server.workers > 1)

    async def stop(self, notice: float) -> None:
        """Takes no more connections after so many seconds, in which balancers turn away, and ends
        once the calls under way have, or the drain timeout has passed."""
        if self._listens:
            await asyncio.sleep(notice)
            await self._face.stop()


class _Renewed:
    """The TLS of the face, by the files as they are at each handshake.

    Files that cannot be loaded leave the certificate of before in use, as gRPC does.
    """

    def __init__(self, tls: TlsSettings) -> None:
        """Raises OSError."""
        self._tls = tls
        self._stamps = self._look()
        self._latest = self.context = _loaded(tls)
        # The first context listens; each handshake may go on under a newer one.
        self.context.sni_callback = self._choose

    def _choose(
        self, handshake: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _listens: ssl.SSLContext
    ) -> None:
        try:
            stamps = self._look()
            if stamps != self._stamps:
                self._latest = _loaded(self._tls)
                self._stamps = stamps
        except OSError as error:
            structlog.get_logger().warning("certificate not renewed", error=str(error))
        handshake.context = self._latest

    def _look(self) -> list[tuple[int, int]]:
        tls = self._tls
        files = [path.stat() for path in (tls.cert, tls.key, tls.client_ca) if path is not None]
        return [(file.st_mtime_ns, file.st_ino) for file in files]


def _loaded(tls: TlsSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.client_ca)
    context.load_cert_chain(tls.cert, tls.key)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.client_ca is not None:
        required = tls.require_client_cert
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    return context
