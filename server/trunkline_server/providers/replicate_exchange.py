"""How a prediction goes: created, then looked at or streamed, and called off."""

from math import ceil

from trunkline_server.providers.codec import CodecTarget, WireRequest
from trunkline_server.providers.exchange import Ask
from trunkline_server.providers.replicate_decode import (
    Json,
    is_over,
    read_prediction,
    require_success,
)
from trunkline_server.providers.replicate_encode import flag
from trunkline_server.providers.replicate_errors import senseless

# The time limit that the vendor can be given for a prediction, in seconds.
_LEAST_LIFE = 5
_LONGEST_LIFE = 86_400
_STREAM_HEADERS = (("accept", "text/event-stream"), ("cache-control", "no-store"))


class PredictionExchange:
    """One prediction; see providers.exchange.Exchange.

    The vendor is given the attempt's own time limit too, so that it stops also when nobody is
    left to tell it so.
    """

    def __init__(self, target: CodecTarget, *, stream: bool) -> None:
        self._pause = max(int(flag(target, "poll_ms")), 10) / 1000
        self._streams = stream
        self._get = ""
        self._cancel = ""

    def first(self, wire: WireRequest, seconds: float) -> WireRequest:
        life = min(max(ceil(seconds), _LEAST_LIFE), _LONGEST_LIFE)
        return wire._replace(headers=(*wire.headers, ("cancel-after", f"{life}s")))

    def follow(self, body: bytes) -> Ask | None:
        prediction = read_prediction(body)
        urls = prediction.get("urls")
        urls = urls if isinstance(urls, dict) else {}
        over = is_over(prediction)
        self._cancel = "" if over else _url(urls, "cancel") or self._cancel
        self._get = _url(urls, "get") or self._get
        if over:
            require_success(prediction)
        if self._streams:
            return self._stream(urls)
        return None if over else self._look_again()

    def rest(self) -> Ask | None:
        return Ask(self._get) if self._get else None

    def abandon(self) -> Ask | None:
        return Ask(self._cancel, "POST") if self._cancel else None

    def _stream(self, urls: Json) -> Ask | None:
        # From here on the prediction is looked at, once its stream has ended.
        self._streams = False
        url = _url(urls, "stream")
        if not url:
            raise senseless("this model does not stream; take streaming from its capabilities")
        return Ask(url, headers=_STREAM_HEADERS, streamed=True)

    def _look_again(self) -> Ask:
        if not self._get:
            raise senseless("the provider does not say where its prediction is found")
        return Ask(self._get, after=self._pause)


def _url(urls: Json, name: str) -> str:
    url = urls.get(name)
    return url if isinstance(url, str) else ""
