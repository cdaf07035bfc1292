"""The methods beside chat and embedding: pictures, transcripts, speech, orders, token counts."""

import asyncio
from collections.abc import AsyncIterator

from trunkline import v1
from trunkline_server.errors import TrunklineError, invalid
from trunkline_server.governance.identity.principal import Principal
from trunkline_server.rpc.service import Service, guarded
from trunkline_server.rpc.ticket import Context, Ticket
from trunkline_server.rpc.validation import (
    validate_count_tokens,
    validate_generate_image,
    validate_rerank,
    validate_synthesize,
    validate_transcribe,
)

MAX_AUDIO_BYTES = 25 * 1024 * 1024


class MediaMethods(Service):
    """These methods of the service."""

    @guarded("generate_image")
    async def generate_image(
        self, ticket: Ticket, raw: bytes, context: Context
    ) -> v1.GenerateImageResponse:
        """GenerateImage."""
        caller, metadata = self._authenticate(ticket)
        request = self._requests.parse(v1.GenerateImageRequest, raw)
        validate_generate_image(request)
        call, request = self._admit(ticket, request, caller, metadata)
        return await self._engine.generate_image(call, request)

    @guarded("transcribe")
    async def transcribe(
        self, ticket: Ticket, sent: AsyncIterator[bytes], context: Context
    ) -> v1.TranscribeResponse:
        """Transcribe. Whoever may not is told so before the recording is taken."""
        caller, metadata = self._authenticate(ticket)
        arrived, patience = self._clock.monotonic(), self._remaining(context)
        try:
            async with asyncio.timeout(patience):
                spec, audio = await self._recording(ticket, sent, caller)
        except TimeoutError:
            raise TrunklineError(
                v1.ERROR_REASON_TIMEOUT, "the recording did not arrive before the deadline"
            ) from None
        call, spec = self._admit(ticket, spec, caller, metadata)
        # The time that the recording took is the call's.
        call.started, call.deadline = arrived, arrived + patience
        return await self._engine.transcribe(call, spec, audio)

    @guarded("synthesize")
    async def synthesize(self, ticket: Ticket, raw: bytes, context: Context) -> None:
        """Synthesize. Events are written, not yielded, as those of StreamGenerate."""
        caller, metadata = self._authenticate(ticket)
        request = self._requests.parse(v1.SynthesizeRequest, raw)
        validate_synthesize(request)
        call, request = self._admit(ticket, request, caller, metadata)
        await self._engine.synthesize(call, request, context.write)

    @guarded("rerank")
    async def rerank(self, ticket: Ticket, raw: bytes, context: Context) -> v1.RerankResponse:
        """Rerank."""
        caller, metadata = self._authenticate(ticket)
        request = self._requests.parse(v1.RerankRequest, raw)
        validate_rerank(request)
        call, request = self._admit(ticket, request, caller, metadata)
        return await self._engine.rerank(call, request)

    @guarded("count_tokens")
    async def count_tokens(
        self, ticket: Ticket, raw: bytes, context: Context
    ) -> v1.CountTokensResponse:
        """CountTokens."""
        caller, metadata = self._authenticate(ticket)
        request = self._requests.parse(v1.CountTokensRequest, raw)
        validate_count_tokens(request)
        call, request = self._admit(ticket, request, caller, metadata)
        return await self._engine.count_tokens(call, request)

    async def _recording(
        self, ticket: Ticket, sent: AsyncIterator[bytes], caller: Principal
    ) -> tuple[v1.TranscribeSpec, bytes]:
        """The spec of the first message, and the recording of all of them. Raises TrunklineError
        as soon as it can: of a recording that is too long, or is nobody's to send, no more is
        taken than shows it."""
        spec: v1.TranscribeSpec | None = None
        audio = bytearray()
        async for raw in sent:
            message = self._requests.parse(v1.TranscribeRequest, raw)
            if spec is None:
                if not message.HasField("spec"):
                    raise invalid("spec", "must be in the first message")
                spec = ticket.request = message.spec
                validate_transcribe(spec)
                self._decide(ticket, caller, spec.model)
            elif message.HasField("spec"):
                raise invalid("spec", "may be in the first message only")
            if len(audio) + len(message.audio) > MAX_AUDIO_BYTES:
                raise invalid("audio", f"must not exceed {MAX_AUDIO_BYTES} bytes in all")
            audio += message.audio
        if spec is None:
            raise invalid("spec", "must be in the first message")
        if not audio:
            raise invalid("audio", "must not be empty")
        return spec, bytes(audio)
