"""Answers that take several requests: what to ask next, and how to call it off.

Most vendors answer a request with its answer. Some take work in, tell where it will be found, and
have to be asked again. Such a codec says, for each reply, what comes next; the engine sends it,
waits, and keeps deadline and books. Still pure: nothing here touches network or clock.
"""

from typing import NamedTuple, Protocol, runtime_checkable

from trunkline_server.providers.codec import CodecTarget, WireRequest

# The name of the event by which a stream's decoder is given the reply that came after the stream.
LAST_REPLY = "trunkline.reply"


class Ask(NamedTuple):
    """The next request. `url` is absolute, as the vendor named it; whether it may be followed is
    the engine's to judge. `after` is how long to wait first, in seconds. The reply of one that is
    `streamed` is the stream of server-sent events that the stream decoder reads."""

    url: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    after: float = 0.0
    streamed: bool = False


class Exchange(Protocol):
    """The exchange of one attempt. Its replies have a 2xx status; others are the codec's
    `decode_error` to read."""

    def first(self, wire: WireRequest, seconds: float) -> WireRequest:
        """The encoded request, told how long its answer is of use: `seconds` from now."""
        ...

    def follow(self, body: bytes) -> Ask | None:
        """What to ask after a reply; None when the reply is the answer.

        Raises UpstreamError for work that has failed, and, as BAD_PROVIDER_RESPONSE, for a reply
        that makes no sense.
        """
        ...

    def rest(self) -> Ask | None:
        """What to ask after a stream has ended, such as its usage. The reply, or the last that
        `follow` leads to from there, is fed to the stream's decoder as an event of the name
        LAST_REPLY. None: nothing."""
        ...

    def abandon(self) -> Ask | None:
        """What ends the vendor's work, as far as that is known from the replies so far; None
        when there is none under way."""
        ...


@runtime_checkable
class ExchangeCodec(Protocol):
    """A dialect whose answers take an exchange."""

    def exchange(self, target: CodecTarget, *, stream: bool) -> Exchange:
        """The exchange of one attempt."""
        ...
