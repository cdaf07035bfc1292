"""A second, deliberately plain reading of server-sent events, to check decoders against."""

import re

_LINE_END = re.compile(rb"\r\n|\n|\r")


def read_events(data: bytes) -> list[tuple[str, bytes]]:
    """Every (event name, joined data lines) of a whole body; the name is empty when not given.

    Follows the WHATWG HTML standard, "Interpreting an event stream", with one exception: a
    last event without its blank line counts, because recordings often lost their last bytes.
    """
    events: list[tuple[str, bytes]] = []
    name, lines = "", list[bytes]()
    for line in [*_LINE_END.split(data.removeprefix(b"\xef\xbb\xbf")), b""]:
        if not line:
            if lines:
                events.append((name, b"\n".join(lines)))
            name, lines = "", []
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            lines.append(value)
        elif field == b"event":
            name = value.decode()
    return events
