"""Framing of server-sent events: bytes in, events out, wherever the bytes are cut.

The rules are those of the WHATWG HTML standard, section 9.2.6 "Interpreting an event stream"
(https://html.spec.whatwg.org/multipage/server-sent-events.html), on bytes: the data is handed
on undecoded, because every dialect's data is JSON and the JSON parser checks the UTF-8 itself.
`id` and `retry` serve reconnection, which no provider's stream knows; they are ignored.
"""

from trunkline import v1
from trunkline_server.errors import UpstreamError

_BOM = b"\xef\xbb\xbf"

# One event: its name, empty when it has none, and its data lines joined by LF.
SseEvent = tuple[str, bytes]


class SseParser:
    """Cuts one stream into events. One instance serves one stream.

    `max_event_bytes` bounds what is held back: an event's data lines, and a line of any kind.
    Beyond it `feed` raises UpstreamError with BAD_PROVIDER_RESPONSE however the stream was
    cut; earlier events of that same chunk are lost with it.
    """

    __slots__ = (
        "_after_cr",
        "_between_events",
        "_data",
        "_data_size",
        "_first_line",
        "_limit",
        "_name",
        "_partial",
        "_partial_size",
    )

    def __init__(self, max_event_bytes: int = 16 * 1024 * 1024) -> None:
        self._limit = max_event_bytes
        # The pieces of a line whose end has not arrived: a list, so that a long line in many
        # pieces is joined once and not once per piece.
        self._partial: list[bytes] = []
        self._partial_size = 0
        self._data: list[bytes] = []
        self._data_size = 0
        self._name = ""
        # True when nothing at all is held back.
        self._between_events = True
        # True when the last byte was a CR: an LF that follows belongs to the same line end.
        self._after_cr = False
        # True until the first line is complete; it alone may carry a byte order mark.
        self._first_line = True

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that the chunk completes, in order."""
        # Most chunks of most vendors are whole events of one data line.
        if (
            self._between_events
            and chunk[:6] == b"data: "
            and chunk[-2:] == b"\n\n"
            and b"\r" not in chunk
            and len(chunk) <= self._limit
        ):
            self._first_line = False
            inside = chunk[6:-2]
            if b"\n" not in inside:
                return [("", inside)]
            events = [("", data) for data in inside.split(b"\n\ndata: ")]
            # None has a line of its own but those that were split at.
            if inside.count(b"\n") == 2 * (len(events) - 1):
                return events
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if not chunk:
            return []
        events = self._interpret(self._complete_lines(chunk))
        if self._data_size + self._partial_size > self._limit:
            raise self._too_large()
        self._between_events = not (self._partial or self._data or self._name or self._after_cr)
        return events

    def finish(self) -> list[SseEvent]:
        """The event that the end of the stream completes, if any.

        The standard discards an event that no blank line ends. Some vendors leave out the last
        blank line, and what they leave unended is the event that carries the usage or the end
        mark; so an event whose lines are all complete is handed out. If a line is cut, the
        stream may have been cut anywhere, and the event it belongs to is discarded.
        """
        return [] if self._partial else self._interpret([b""])

    def _complete_lines(self, chunk: bytes) -> list[bytes]:
        """The lines that end in the chunk; what follows the last line end is held back."""
        lines = chunk.splitlines()
        last = chunk[-1]
        self._after_cr = last == 0x0D
        tail = b"" if last in {0x0A, 0x0D} else lines.pop()
        if lines and self._partial:
            self._partial.append(lines[0])
            lines[0] = b"".join(self._partial)
            self._partial = []
            self._partial_size = 0
        if tail:
            self._partial.append(tail)
            self._partial_size += len(tail)
        if lines and self._first_line:
            self._first_line = False
            lines[0] = lines[0].removeprefix(_BOM)
        return lines

    def _interpret(self, lines: list[bytes]) -> list[SseEvent]:
        events: list[SseEvent] = []
        for line in lines:
            if self._data_size + len(line) > self._limit:
                raise self._too_large()
            if not line:
                if self._data:
                    events.append((self._name, b"\n".join(self._data)))
                    self._data = []
                    self._data_size = 0
                self._name = ""
                continue
            field, _, value = line.partition(b":")
            if field == b"data":
                self._data.append(value.removeprefix(b" "))
                # The LF that joins the lines is charged too, so that empty lines count.
                self._data_size += len(value) + 1
            elif field == b"event":
                self._name = value.removeprefix(b" ").decode(errors="replace")
        return events

    def _too_large(self) -> UpstreamError:
        return UpstreamError(
            v1.ERROR_REASON_BAD_PROVIDER_RESPONSE,
            f"a server-sent event exceeds {self._limit} bytes",
        )
