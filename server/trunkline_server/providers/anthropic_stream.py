"""Streamed answers of the Messages API.

The stream is message_start; for each content block a start, deltas and a stop; message_delta
with the stop reason and cumulative counts; message_stop. Pings and errors may come anywhere,
and the vendor asks that events and deltas of unknown types be passed over
(https://platform.claude.com/docs/en/build-with-claude/streaming).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.anthropic_blocks import (
    DIALECT,
    arguments_text,
    citations_signature,
    note_citations,
    note_sources,
)
from trunkline_server.providers.anthropic_decode import (
    OWN_BLOCKS,
    SHAPE_ERRORS,
    finish_reason,
    read_block,
    read_usage,
)
from trunkline_server.providers.anthropic_errors import bad_response, reported_error
from trunkline_server.providers.references import References

# The kind of block that each type of delta belongs to.
_BLOCK_OF_DELTA: Mapping[str, str] = {
    "text_delta": "text",
    "input_json_delta": "tool_use",
    "citations_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "thinking",
}


class _Block:
    """A content block that has started and not stopped.

    `part_index` is its place. `empty` holds until something of it was handed out: for a tool
    call, something of its arguments. One of the vendor's own is handed out when it is whole:
    `content` is what it began with, and `json` what came of its input.
    """

    __slots__ = ("citations", "content", "empty", "json", "kind", "length", "part_index")

    def __init__(self, content: dict[str, Any], part_index: int) -> None:
        self.kind: str = content["type"]
        self.content = content
        self.part_index = part_index
        self.empty = True
        self.json = ""
        # Characters of text.
        self.length = 0
        self.citations: list[dict[str, Any]] = []


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
        self._references = References()

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
        block = self._open[index] = _Block(content, self._parts)
        self._parts += 1
        if kind not in OWN_BLOCKS:
            return ()
        if kind == "text":
            block.citations += content.get("citations") or ()
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
        delta = v1.StreamDelta(part_index=block.part_index)
        delta.tool_call.id = content["id"]
        delta.tool_call.name = content["name"]
        return [delta]

    def _block_delta(self, body: dict[str, Any]) -> Sequence[v1.StreamDelta]:
        block = self._open[body["index"]]
        delta = body["delta"]
        kind = delta["type"]
        if block.kind not in OWN_BLOCKS:
            _add_to_vendors(block, delta)
            return ()
        expected = _BLOCK_OF_DELTA.get(kind)
        if expected is None:
            return ()
        if expected != block.kind:
            raise bad_response("a delta of another kind than its content block")
        if kind == "text_delta":
            return self._text(block, delta["text"])
        if kind == "input_json_delta":
            return self._arguments(block, delta["partial_json"])
        if kind == "citations_delta":
            block.citations.append(delta["citation"])
            return ()
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
        if block.kind not in OWN_BLOCKS:
            return self._vendors(block)
        if block.citations:
            return self._cited(block)
        if not block.empty:
            return ()
        if block.kind == "tool_use":
            return self._arguments(block, arguments_text(block.content.get("input") or {}))
        if block.kind == "text":
            return [v1.StreamDelta(part_index=block.part_index, text="")]
        return [v1.StreamDelta(part_index=block.part_index, reasoning="")]

    def _vendors(self, block: _Block) -> Sequence[v1.StreamDelta]:
        content = block.content
        if block.json:
            content = {**content, "input": _whole_input(block.json)}
        delta = v1.StreamDelta(part_index=block.part_index)
        read_block(content, delta.part)
        note_sources(content, self._references)
        return [delta, *self._references.take()]

    def _cited(self, block: _Block) -> Sequence[v1.StreamDelta]:
        note_citations(block.citations, block.part_index, block.length, self._references)
        signature = citations_signature(block.citations)
        return [
            v1.StreamDelta(part_index=block.part_index, signature=signature),
            *self._references.take(),
        ]

    def _text(self, block: _Block, text: str) -> Sequence[v1.StreamDelta]:
        if not text:
            return ()
        block.empty = False
        block.length += len(text)
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


def _whole_input(text: str) -> Any:
    """The input of a vendor's own tool; text where the output limit cut it."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _add_to_vendors(block: _Block, delta: dict[str, Any]) -> None:
    """Adds to a block of the vendor's own: more of its input, or of the fields that the delta
    names."""
    if delta["type"] == "input_json_delta":
        block.json += delta["partial_json"]
        return
    for name, value in delta.items():
        if name != "type":
            before = block.content.get(name)
            goes_on = isinstance(before, str) and isinstance(value, str)
            block.content[name] = f"{before}{value}" if goes_on else value


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
