"""Calls that are neither cached nor shared, from a request to an answer."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeVar, cast

from trunkline import v1
from trunkline_server.engine.accounts import Accounts
from trunkline_server.engine.attempt import Services, deadline_passed
from trunkline_server.engine.call import Call
from trunkline_server.engine.limit import within
from trunkline_server.engine.media import (
    CountTokens,
    GenerateImage,
    MediaOperation,
    Rerank,
    Transcribe,
)
from trunkline_server.engine.media_work import AnsweredT, MediaWork, SendSpeech
from trunkline_server.engine.operations import RequestT
from trunkline_server.engine.ports import Privacy, Treatment
from trunkline_server.engine.requests import Request
from trunkline_server.engine.table import Table
from trunkline_server.engine.units import speech_units

TreatedT = TypeVar("TreatedT", bound=Request)


class MediaCalls:
    """Carries out such calls by the table in force, and says how any call is treated."""

    def __init__(self, services: Services, table: Table) -> None:
        self._services = services
        self._accounts = Accounts(services)
        self._media = MediaWork(services, self._accounts, table)
        # None: labels mean nothing. May be replaced as the table may.
        self.privacy: Privacy | None = None

    async def _answer(
        self,
        call: Call,
        request: RequestT,
        operation: MediaOperation[RequestT, AnsweredT],
    ) -> AnsweredT:
        """Pictures, transcripts, orders. Raises TrunklineError."""
        call.units = operation.units
        with self._begun(call):
            privacy = self.privacy
            if privacy is not None:
                request = await self._treated(call, request, privacy)
            response = await self._media.answer(call, request, operation)
        treatment = call.treatment
        if treatment is None or treatment.veil is None:
            return response
        return treatment.veil.restored_media(response)

    async def generate_image(
        self, call: Call, request: v1.GenerateImageRequest
    ) -> v1.GenerateImageResponse:
        """Makes pictures. Raises TrunklineError."""
        return await self._answer(call, request, GenerateImage(request, self._services.clock))

    async def transcribe(
        self, call: Call, spec: v1.TranscribeSpec, audio: bytes
    ) -> v1.TranscribeResponse:
        """Writes a recording down. Raises TrunklineError."""
        return await self._answer(call, spec, Transcribe(spec, audio, self._services.clock))

    async def rerank(self, call: Call, request: v1.RerankRequest) -> v1.RerankResponse:
        """Puts documents in order. Raises TrunklineError."""
        return await self._answer(call, request, Rerank(request, self._services.clock))

    async def synthesize(self, call: Call, request: v1.SynthesizeRequest, send: SendSpeech) -> None:
        """Speaks a text, each event through `send`. Raises TrunklineError; then no end event has
        been sent."""
        call.units = speech_units(request)
        with self._begun(call):
            privacy = self.privacy
            if privacy is not None:
                request = await self._treated(call, request, privacy)
            await self._media.speak(call, request, send)

    async def count_tokens(
        self, call: Call, request: v1.CountTokensRequest
    ) -> v1.CountTokensResponse:
        """Counts the tokens of a conversation. Raises TrunklineError."""
        operation = CountTokens(self._services.clock)
        call.units = operation.units
        with self._begun(call):
            privacy = self.privacy
            if privacy is not None:
                request = await self._treated(call, request, privacy)
            return await self._media.count(call, request, operation)

    @contextmanager
    def _begun(self, call: Call) -> Generator[None]:
        """Opens the books of a call, and closes them when it fails before its work has begun."""
        self._accounts.begin(call)
        try:
            if self._services.books is not None:
                self._services.books.admit()
            yield
        except BaseException as failure:
            self._accounts.fail(call, failure)
            raise

    async def _treated(self, call: Call, request: TreatedT, privacy: Privacy) -> TreatedT:
        """What vendors see of a request, whose call notes how it is treated."""
        treatment = privacy.treat(request, call.id) or await self._examined(call, privacy)
        return _sent(call, treatment, request)

    async def _examined(self, call: Call, privacy: Privacy) -> Treatment:
        remaining = call.deadline - self._services.clock.monotonic()
        try:
            return await within(remaining, privacy.examine(call.request, call.id))
        except TimeoutError:
            raise deadline_passed(call) from None


def _sent(call: Call, treatment: Treatment, request: TreatedT) -> TreatedT:
    """Notes how a call is treated, and gives what vendors see of its request.

    From here on nothing that looks at the call sees what was masked.
    """
    call.treatment = treatment
    call.constraints += treatment.constraints
    masked = treatment.masked
    if masked is None:
        return request
    call.served = request.context.user_id
    call.request = masked
    call.raw = b""
    return cast("TreatedT", masked)  # A copy is of the kind that was copied.
