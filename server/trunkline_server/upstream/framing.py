"""How the events of a streamed answer are cut out of its bytes: a parser for each framing.

A codec names its framing; see `framing_of`. The parsers share one interface, so that what reads
streams does not ask which one it holds.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from trunkline_server.upstream.eventstream import EventStreamParser
from trunkline_server.upstream.sse import SseParser


class Framing(Protocol):
    """Cuts one stream into events, each a name and its data. One instance serves one stream.

    Raises UpstreamError: BAD_PROVIDER_RESPONSE for bytes that are not framed so or too large,
    STREAM_INTERRUPTED for an end in the middle of what was promised.
    """

    def feed(self, chunk: bytes) -> Sequence[tuple[str, bytes]]:
        """The events that the chunk completes, in order."""
        ...

    def finish(self) -> Sequence[tuple[str, bytes]]:
        """The events that the end of the stream completes."""
        ...


FRAMINGS: Mapping[str, Callable[[], Framing]] = {
    "sse": SseParser,
    "aws-eventstream": EventStreamParser,
}


def framing_of(codec: object) -> Callable[[], Framing]:
    """What makes the parser of a codec's streams: by the codec's attribute `framing`, a key of
    FRAMINGS; server-sent events where it has none. Raises KeyError for a framing not known."""
    return FRAMINGS[getattr(codec, "framing", "sse")]
