"""What stands between the vendor and the caller of a masked call, on the way back."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from trunkline import v1
from trunkline_server.privacy.mask import MaskMap
from trunkline_server.privacy.payload import PayloadNote
from trunkline_server.privacy.stream import StreamRestorer

Send = Callable[[v1.StreamGenerateResponse], Awaitable[None]]
Media = v1.GenerateImageResponse | v1.TranscribeResponse | v1.RerankResponse
MediaT = TypeVar("MediaT", bound=Media)
Take = Callable[[v1.StreamGenerateResponse | bytes], Awaitable[None]]


class Veil:
    """Gives one call's answer back with what its placeholders stand for, and notes the answer
    as the vendor gave it where payloads are logged."""

    __slots__ = ("_map", "_note")

    def __init__(self, map_: MaskMap, note: PayloadNote | None) -> None:
        self._map = map_
        self._note = note

    def restored(self, response: v1.GenerateResponse | bytes) -> v1.GenerateResponse:
        """The answer as the caller gets it; the given one may be serialised already. It is not
        changed: others may get it too."""
        if isinstance(response, bytes):
            response = v1.GenerateResponse.FromString(response)
        if self._note is not None:
            self._note.message(response.message)
            self._note.end()
        if not len(self._map):
            return response
        made = v1.GenerateResponse()
        made.CopyFrom(response)
        self._map.restore_message(made.message)
        return made

    def restored_media(self, response: MediaT) -> MediaT:
        """The answer as the caller gets it. Of an order there is nothing to restore."""
        note, map_ = self._note, self._map
        if isinstance(response, v1.TranscribeResponse):
            if note is not None:
                note.text(response.text)
            response.text = map_.restore(response.text)
            for segment in response.segments:
                segment.text = map_.restore(segment.text)
        elif isinstance(response, v1.GenerateImageResponse):
            for image in response.images:
                if note is not None:
                    note.text(image.revised_prompt)
                image.revised_prompt = map_.restore(image.revised_prompt)
        if note is not None:
            note.end()
        return response

    def sender(self, send: Send) -> Take:
        """What takes the events of a stream as the vendor gave them, which may be serialised
        already, and sends them on."""
        restorer = StreamRestorer(self._map) if len(self._map) else None
        note = self._note

        async def restoring(event: v1.StreamGenerateResponse | bytes) -> None:
            if isinstance(event, bytes):
                event = v1.StreamGenerateResponse.FromString(event)
            kind = event.WhichOneof("event")
            if note is not None and kind == "delta":
                note.delta(event.delta)
            elif note is not None and kind == "end":
                note.end()
            if restorer is None or kind == "start":
                await send(event)
                return
            deltas = restorer.feed(event.delta) if kind == "delta" else restorer.finish()
            for delta in deltas:
                await send(v1.StreamGenerateResponse(delta=delta))
            if kind == "end":
                await send(event)

        return restoring
