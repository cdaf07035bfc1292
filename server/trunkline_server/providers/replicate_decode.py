"""Reads predictions, whole and streamed, in the shapes of Replicate's HTTP API and its SDK."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.exchange import LAST_REPLY
from trunkline_server.providers.replicate_errors import called_off, failed, senseless

Json = dict[str, Any]

# The vendor's words for predictions that nothing more will come of.
_CALLED_OFF = frozenset({"aborted", "canceled"})
_OVER = frozenset({"failed", "succeeded"}) | _CALLED_OFF
# What is known of work under way, by the same words.
_UNDER_WAY = frozenset({"processing", "queued", "starting"})


def read_prediction(body: bytes) -> Json:
    """The prediction in a reply. Raises BAD_PROVIDER_RESPONSE if there is none."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise senseless("the provider sent something that is not JSON") from None
    status = document.get("status") if isinstance(document, dict) else None
    if not isinstance(status, str) or status not in _OVER | _UNDER_WAY:
        raise senseless("the provider sent no prediction")
    prediction: Json = document
    return prediction


def is_over(prediction: Json) -> bool:
    """Whether nothing more will come of it."""
    return prediction["status"] in _OVER


def require_success(prediction: Json) -> None:
    """Raises UpstreamError for a prediction that has failed or was called off."""
    status = prediction["status"]
    if status == "failed":
        raise failed(_text(prediction.get("error")))
    if status in _CALLED_OFF:
        raise called_off(status)


def decode_prediction(body: bytes, into: v1.GenerateResponse) -> None:
    """Fills the answer of a prediction that is over; raises as Codec.decode_generate says."""
    prediction = read_prediction(body)
    require_success(prediction)
    if not is_over(prediction):
        raise senseless("the prediction is not over")
    into.model = model_of(prediction)
    into.message.role = v1.ROLE_ASSISTANT
    if text := output_text(prediction.get("output")):
        into.message.parts.add().text = text
    into.vendor_finish_reason = prediction["status"]
    into.finish_reason = v1.FINISH_REASON_STOP
    read_metrics(prediction, into.usage)


def output_text(output: Any) -> str:
    """What a model has written: a text, or the pieces of one; data of other shape as JSON."""
    if output is None:
        return ""
    if isinstance(output, str):
        return output
    if isinstance(output, list) and all(isinstance(piece, str) for piece in output):
        return "".join(output)
    return orjson.dumps(output).decode()


def read_metrics(prediction: Json, into: v1.Usage) -> None:
    """The tokens that the vendor has counted. Models that it does not count tokens of are told
    by seconds alone, which a Usage has no place for: then it stays empty, to be estimated."""
    metrics = prediction.get("metrics")
    if not isinstance(metrics, dict):
        return
    read, written = _count(metrics, "input_token_count"), _count(metrics, "output_token_count")
    if read is not None and written is not None:
        into.input_tokens = read
        into.output_tokens = written
        into.source = v1.USAGE_SOURCE_PROVIDER


def model_of(prediction: Json) -> str:
    """The model's name, and its version where it has one that says more than "hidden"."""
    name, version = _text(prediction.get("model")), _text(prediction.get("version"))
    return f"{name}:{version}" if name and len(version) == 64 else name or version


class ReplicateStreamDecoder:
    """Reads the events of one prediction; see providers.codec.StreamDecoder.

    `output` events hold text as it is, `error` and `done` JSON; `logs` are nobody's answer. What
    it consumed is told by the prediction, which is read after the stream.
    """

    def __init__(self) -> None:
        self.model = ""
        self.response_id = ""
        self.usage = v1.Usage()
        self._done = False
        self._status = ""

    def feed(self, event: str, data: bytes) -> Sequence[v1.StreamDelta]:
        if event == "output":
            try:
                text = data.decode()
            except UnicodeDecodeError:
                raise senseless("the provider sent text that is not UTF-8") from None
            return (v1.StreamDelta(text=text),) if text else ()
        if event == "error":
            raise failed(_detail(data))
        if event == "done":
            self._finish(data)
        elif event == LAST_REPLY:
            prediction = read_prediction(data)
            require_success(prediction)
            self._status = prediction["status"]
            self.model = model_of(prediction)
            self.response_id = _text(prediction.get("id"))
            read_metrics(prediction, self.usage)
        return ()

    def finish(self) -> v1.StreamEnd:
        if not self._done:
            raise UpstreamError(
                v1.ERROR_REASON_STREAM_INTERRUPTED,
                "the stream ended before the prediction did",
                http_status=200,
            )
        return v1.StreamEnd(
            finish_reason=v1.FINISH_REASON_STOP,
            vendor_finish_reason=self._status,
            usage=self.usage,
            model=self.model,
        )

    def _finish(self, data: bytes) -> None:
        reason = _object(data).get("reason")
        if reason == "error":
            raise failed("")
        if reason in {"canceled", "aborted"}:
            raise called_off(reason)
        self._done = True


def _detail(data: bytes) -> str:
    """What an error event says: JSON with a detail, or a sentence."""
    report = _object(data)
    told = _text(report.get("detail")) or _text(report.get("error"))
    return told or ("" if report else data.decode(errors="replace"))


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _count(metrics: Json, name: str) -> int | None:
    value = metrics.get(name)
    whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
    return value if whole else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
