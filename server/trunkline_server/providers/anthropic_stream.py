"""Streamed answers of the Messages API.

The stream is message_start; for each content block a start, deltas and a stop; message_delta
with the stop reason and cumulative counts; message_stop. Pings and errors may come anywhere,
and the vendor asks that events and deltas of unknown types be passed over
(https://platform.claude.com/docs/en/build-with-claude/streaming).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.anthropic_content import DIALECT
from trunkline_server.providers.anthropic_decode import (
    KEPT_BLOCKS,
    SHAPE_ERRORS,
    arguments_text,
    finish_reason,
    read_block,
    read_usage,
)
from trunkline_server.providers.anthropic_errors import bad_response, reported_error

# The kind of block that each type of delta belongs to.
_BLOCK_OF_DELTA: Mapping[str, str] = {
    "text_delta": "text",
    "input_json_delta": "tool_use",
    "thinking_delta": "thinking",
    "signature_delta": "thinking",
}


class _Block:
    """A content block that has started and not stopped.

    `part_index` is its place among the blocks that are kept. `empty` holds until something of
    it was handed out: for a tool call, something of its arguments.
    """

    __slots__ = ("empty", "input", "kind", "part_index")

    def __init__(self, kind: str, part_index: int) -> None:
        self.kind = kind
        self.part_index = part_index
        self.empty = True
        self.input: dict[str, Any] = {}


class AnthropicStreamDecoder:
    """Decodes one streamed answer; see StreamDecoder.

    Parts are numbered when their blocks start, so that a block's deltas find their part
    whatever other blocks are open. A block that is over without content hands out one empty
    delta, because Generate would give an empty part: `{}` for a call without arguments.
    """

    def __init__(self) -> None:
        self.model = ""
        self.response_id = ""
        self.usage = v1.Usage()
        self._counts: dict[str, Any] = {}
        self._open: dict[int, _Block] = {}
        self._parts = 0
        self._started = False
        self._stop_reason = ""
        self._ended = False

    def feed(self, event: str, data: bytes) -> Sequence[v1.StreamDelta]:
        """The deltas of one event; its data's own `type` goes before its name."""
        try:
            body = orjson.loads(data)
            handler = _HANDLERS.get(body.get("type", event))
            return handler(self, body) if handler else ()
        except SHAPE_ERRORS:
            # Without its cause, which may quote the answer.
            raise bad_response("a stream event that makes no sense") from None

    def finish(self) -> v1.StreamEnd:
        """The end, once message_stop was seen."""
        if not self._ended:
            raise UpstreamError(
                v1.ERROR_REASON_STREAM_INTERRUPTED,
                "the provider's stream ended before its message_stop event",
                http_status=200,
            )
        end = v1.StreamEnd(
            finish_reason=finish_reason(self._stop_reason),
            vendor_finish_reason=self._stop_reason,
            model=self.model,
        )
        if self._counts:
            end.usage.CopyFrom(self.usage)
        return end

    def _message_start(self, body: dict[str, Any]) -> Sequence[v1.StreamDelta]:
        message = body["message"]
        if self._started:
            # Proxies repeat a whole opening, and splice a second answer into the first.
            if message["id"] == self.response_id and not (
                self._parts or self._open or message["content"]
            ):
                return ()
            raise bad_response("a second message within a stream")
        self.response_id = _text(message["id"])
        self.model = _text(message["model"])
        self._started = True
        self._stop_reason = _stop_reason(message)
        self._take_counts(message.get("usage"))
        # A turn in which the vendor's own code calls tools comes whole in its opening.
        deltas: list[v1.StreamDelta] = []
        for index, content in enumerate(message["content"]):
            deltas += self._open_block(index, content)
            deltas += self._close(self._open.pop(index))
        return deltas

    def _block_start(self, body: dict[str, Any]) -> Sequence[v1.StreamDelta]:
        return self._open_block(body["index"], body["content_block"])

    def _open_block(self, index: int, content: dict[str, Any]) -> Sequence[v1.StreamDelta]:
        kind = content["type"]
        if type(index) is not int or index in self._open:
            raise bad_response("a stream that starts a content block twice")
        if kind not in KEPT_BLOCKS:
            self._open[index] = _Block("", -1)
            return ()
        block = self._open[index] = _Block(kind, self._parts)
        self._parts += 1
        if kind == "text":
            return self._text(block, content["text"])
        if kind == "thinking":
            deltas = self._thinking(block, content["thinking"])
            return [*deltas, *self._signature(block, content.get("signature") or "")]
        block.empty = False
        if kind == "redacted_thinking":
            delta = v1.StreamDelta(part_index=block.part_index)
            read_block(content, delta.part)
            return [delta]
        # The arguments come as deltas; hosts that give them here give no deltas.
        block.empty = True
        block.input = content.get("input") or {}
        delta = v1.StreamDelta(part_index=block.part_index)
        delta.tool_call.id = content["id"]
        delta.tool_call.name = content["name"]
        return [delta]

    def _block_delta(self, body: dict[str, Any]) -> Sequence[v1.StreamDelta]:
        block = self._open[body["index"]]
        delta = body["delta"]
        kind = delta["type"]
        expected = _BLOCK_OF_DELTA.get(kind)
        if expected is None or not block.kind:
            return ()
        if expected != block.kind:
            raise bad_response("a delta of another kind than its content block")
        if kind == "text_delta":
            return self._text(block, delta["text"])
        if kind == "input_json_delta":
            return self._arguments(block, delta["partial_json"])
        if kind == "thinking_delta":
            return self._thinking(block, delta["thinking"])
        return self._signature(block, delta["signature"])

    def _block_stop(self, body: dict[str, Any]) -> Sequence[v1.StreamDelta]:
        return self._close(self._open.pop(body["index"]))

    def _message_delta(self, body: dict[str, Any]) -> Sequence[v1.StreamDelta]:
        self._stop_reason = _stop_reason(body["delta"]) or self._stop_reason
        self._take_counts(body.get("usage"))
        return ()

    def _message_stop(
        self,
        body: dict[str, Any],
    ) -> Sequence[v1.StreamDelta]:
        self._ended = True
        deltas: list[v1.StreamDelta] = []
        for block in self._open.values():
            deltas += self._close(block)
        self._open.clear()
        return deltas

    def _error(self, body: dict[str, Any]) -> Sequence[v1.StreamDelta]:
        raise reported_error(body, status=200)

    def _close(self, block: _Block) -> Sequence[v1.StreamDelta]:
        if not block.empty or not block.kind:
            return ()
        if block.kind == "tool_use":
            return self._arguments(block, arguments_text(block.input))
        if block.kind == "text":
            return [v1.StreamDelta(part_index=block.part_index, text="")]
        return [v1.StreamDelta(part_index=block.part_index, reasoning="")]

    def _text(self, block: _Block, text: str) -> Sequence[v1.StreamDelta]:
        if not text:
            return ()
        block.empty = False
        return [v1.StreamDelta(part_index=block.part_index, text=text)]

    def _thinking(self, block: _Block, text: str) -> Sequence[v1.StreamDelta]:
        if not text:
            return ()
        block.empty = False
        return [v1.StreamDelta(part_index=block.part_index, reasoning=text)]

    def _signature(self, block: _Block, value: str) -> Sequence[v1.StreamDelta]:
        if not value:
            return ()
        signature = v1.Signature(dialect=DIALECT, value=value)
        return [v1.StreamDelta(part_index=block.part_index, signature=signature)]

    def _arguments(self, block: _Block, text: str) -> Sequence[v1.StreamDelta]:
        if not text:
            return ()
        block.empty = False
        call = v1.ToolCallDelta(arguments_json=text)
        return [v1.StreamDelta(part_index=block.part_index, tool_call=call)]

    def _take_counts(self, counts: dict[str, Any] | None) -> None:
        """Counts are cumulative: a later one replaces the earlier, one left out stands."""
        if not counts:
            return
        self._counts.update((name, value) for name, value in counts.items() if value is not None)
        usage = v1.Usage()
        read_usage(self._counts, usage)
        self.usage = usage


def _stop_reason(fields: dict[str, Any]) -> str:
    return _text(fields.get("stop_reason") or "")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


_HANDLERS: Mapping[
    str, Callable[[AnthropicStreamDecoder, dict[str, Any]], Sequence[v1.StreamDelta]]
] = {
    "message_start": AnthropicStreamDecoder._message_start,
    "content_block_start": AnthropicStreamDecoder._block_start,
    "content_block_delta": AnthropicStreamDecoder._block_delta,
    "content_block_stop": AnthropicStreamDecoder._block_stop,
    "message_delta": AnthropicStreamDecoder._message_delta,
    "message_stop": AnthropicStreamDecoder._message_stop,
    "error": AnthropicStreamDecoder._error,
}
