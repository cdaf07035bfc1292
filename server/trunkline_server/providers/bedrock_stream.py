"""Streamed answers of ConverseStream.

The stream is messageStart; for each content block a start, which blocks of text and reasoning go
without, deltas and a stop; messageStop with the reason; metadata with the counts. An exception may
come anywhere, and ends it. Every event's `p` is padding, of random length, against eavesdroppers
who measure.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.bedrock_content import DIALECT
from trunkline_server.providers.bedrock_decode import (
    SHAPE_ERRORS,
    finish_reason,
    is_server_tool,
    json_text,
    read_citations,
    read_image,
    read_item,
    read_usage,
    routed_model,
)
from trunkline_server.providers.bedrock_errors import bad_response, stream_failure
from trunkline_server.providers.bedrock_guardrail import read_findings

_FAILURES = ("exception:", "error:")


class _Block:
    """A content block that has begun and not stopped.

    `part_index` is its place in the message. `empty` holds until something of it was handed out:
    for a tool call, something of its arguments. `held` is what can only be handed out whole.
    """

    __slots__ = ("characters", "citations", "empty", "held", "kind", "part_index", "start")

    def __init__(self, kind: str, part_index: int, start: Any = None) -> None:
        self.kind = kind
        self.part_index = part_index
        self.start = start
        self.empty = True
        self.characters = 0
        self.citations: list[dict[str, Any]] = []
        self.held: list[Any] = []


class BedrockStreamDecoder:
    """Decodes one streamed answer; see StreamDecoder.

    Parts are numbered as their blocks begin. What comes in pieces that mean nothing alone, which
    are redacted reasoning, pictures and the service's own tools, is handed out when its block
    stops, as are a text's citations, because only then it is known which words cite. A block that
    is over without content hands out one empty delta, because Generate would give an empty part:
    `{}` for a call without arguments.
    """

    def __init__(self) -> None:
        # The service tells neither.
        self.model = ""
        self.response_id = ""
        self.usage = v1.Usage()
        self._blocks: dict[int, _Block] = {}
        self._parts = 0
        self._sources = 0
        self._stop_reason: str | None = None
        self._findings: list[v1.FilterFinding] = []

    def feed(self, event: str, data: bytes) -> Sequence[v1.StreamDelta]:
        """The deltas of one event. Events of unknown names are passed over."""
        handler = _HANDLERS.get(event)
        if handler is None:
            if event.startswith(_FAILURES):
                raise stream_failure(event.partition(":")[2], data)
            return ()
        try:
            return handler(self, orjson.loads(data))
        except SHAPE_ERRORS:
            # Without its cause, which may quote the answer.
            raise bad_response("a stream event that makes no sense") from None

    def finish(self) -> v1.StreamEnd:
        """The end, once messageStop was seen."""
        if self._stop_reason is None:
            raise UpstreamError(
                v1.ERROR_REASON_STREAM_INTERRUPTED,
                "the provider's stream ended before its messageStop event",
                http_status=200,
            )
        end = v1.StreamEnd(
            finish_reason=finish_reason(self._stop_reason),
            vendor_finish_reason=self._stop_reason,
            model=self.model,
            filter_findings=self._findings,
        )
        if self.usage.source:
            end.usage.CopyFrom(self.usage)
        return end

    def _block_start(self, body: dict[str, Any]) -> Sequence[v1.StreamDelta]:
        index, start = body["contentBlockIndex"], body["start"]
        if index in self._blocks:
            raise bad_response("a stream that starts a content block twice")
        if "toolUse" in start:
            use = start["toolUse"]
            if is_server_tool(use):
                self._begin(index, "serverTool", dict(use))
                return ()
            block = self._begin(index, "toolUse")
            delta = v1.StreamDelta(part_index=block.part_index)
            delta.tool_call.id = use["toolUseId"]
            delta.tool_call.name = use["name"]
            return [delta]
        if "toolResult" in start:
            self._begin(index, "toolResult", dict(start["toolResult"]))
        elif "image" in start:
            self._begin(index, "image", start["image"]["format"])
        return ()

    def _begin(self, index: int, kind: str, start: Any = None) -> _Block:
        if type(index) is not int:
            raise TypeError("not an index")
        block = self._blocks[index] = _Block(kind, self._parts, start)
        self._parts += 1
        return block

    def _block_delta(self, body: dict[str, Any]) -> Sequence[v1.StreamDelta]:
        index, delta = body["contentBlockIndex"], body["delta"]
        if "text" in delta:
            block = self._block(index, "text")
            text = delta["text"]
            block.characters += len(text)
            return self._text(block, text)
        if "toolUse" in delta:
            written = delta["toolUse"]["input"]
            block = self._blocks[index]
            if block.kind == "serverTool":
                block.held.append(written)
                return ()
            return self._arguments(self._block(index, "toolUse"), written)
        if "reasoningContent" in delta:
            return self._reasoning(index, delta["reasoningContent"])
        if "citation" in delta:
            self._block(index, "text").citations.append(delta["citation"])
        elif "toolResult" in delta:
            self._block(index, "toolResult").held += delta["toolResult"]
        elif "image" in delta:
            data = delta["image"]["source"]["bytes"]
            self._block(index, "image").held.append(base64.b64decode(data))
        return ()

    def _block(self, index: int, kind: str) -> _Block:
        """The block that a delta of some kind belongs to, begun by it if need be."""
        block = self._blocks.get(index)
        if block is None:
            return self._begin(index, kind)
        if block.kind != kind:
            raise bad_response("a delta of another kind than its content block")
        return block

    def _reasoning(self, index: int, content: dict[str, Any]) -> Sequence[v1.StreamDelta]:
        if "redactedContent" in content:
            block = self._block(index, "redacted")
            block.held.append(base64.b64decode(content["redactedContent"]))
            return ()
        block = self._block(index, "reasoning")
        if "text" in content:
            text = content["text"]
            if not text:
                return ()
            block.empty = False
            return [v1.StreamDelta(part_index=block.part_index, reasoning=text)]
        value = content.get("signature")
        if not value:
            return ()
        signature = v1.Signature(dialect=DIALECT, value=value)
        return [v1.StreamDelta(part_index=block.part_index, signature=signature)]

    def _block_stop(self, body: dict[str, Any]) -> Sequence[v1.StreamDelta]:
        # A block of which nothing ever came has no kind, and is no part.
        block = self._blocks.pop(body["contentBlockIndex"], None)
        return () if block is None else self._close(block)

    def _close(self, block: _Block) -> Sequence[v1.StreamDelta]:
        kind, index = block.kind, block.part_index
        if kind == "text":
            deltas = [v1.StreamDelta(part_index=index, text="")] if block.empty else []
            return [*deltas, *self._cited(block)]
        if kind == "toolUse":
            return self._arguments(block, "{}") if block.empty else ()
        if kind == "reasoning":
            return [v1.StreamDelta(part_index=index, reasoning="")] if block.empty else ()
        delta = v1.StreamDelta(part_index=index)
        part = delta.part
        if kind == "redacted":
            data = b"".join(block.held)
            part.reasoning.redacted_data = base64.b64encode(data).decode()
            part.signature.dialect = DIALECT
        elif kind == "image":
            read_image(block.start, b"".join(block.held), part)
        elif kind == "serverTool":
            written = "".join(block.held)
            read_item("toolUse", {**block.start, "input": _object(written)}, part)
        else:
            read_item("toolResult", {**block.start, "content": block.held}, part)
        return [delta]

    def _cited(self, block: _Block) -> Sequence[v1.StreamDelta]:
        if not block.citations:
            return ()
        index = block.part_index
        sources, citations = read_citations(block.citations, index, block.characters, self._sources)
        self._sources += len(sources)
        deltas = [v1.StreamDelta(part_index=index, source=source) for source in sources]
        deltas += [v1.StreamDelta(part_index=index, citation=each) for each in citations]
        return deltas

    def _message_stop(self, body: dict[str, Any]) -> Sequence[v1.StreamDelta]:
        stop_reason = body.get("stopReason") or ""
        if not isinstance(stop_reason, str):
            raise TypeError("not a reason")
        self._stop_reason = stop_reason
        deltas: list[v1.StreamDelta] = []
        for block in self._blocks.values():
            deltas += self._close(block)
        self._blocks.clear()
        return deltas

    def _metadata(self, body: dict[str, Any]) -> Sequence[v1.StreamDelta]:
        if body.get("usage"):
            usage = v1.Usage()
            read_usage(body["usage"], usage)
            self.usage = usage
        trace = body.get("trace")
        if trace:
            self.model = routed_model(trace)
            self._findings = read_findings(trace)
        return ()

    def _text(self, block: _Block, text: str) -> Sequence[v1.StreamDelta]:
        if not text:
            return ()
        block.empty = False
        return [v1.StreamDelta(part_index=block.part_index, text=text)]

    def _arguments(self, block: _Block, text: str) -> Sequence[v1.StreamDelta]:
        if not text:
            return ()
        block.empty = False
        call = v1.ToolCallDelta(arguments_json=text)
        return [v1.StreamDelta(part_index=block.part_index, tool_call=call)]


def _object(written: str) -> Any:
    """What was written of a tool's input; the text itself where it is not JSON."""
    if not written:
        return {}
    try:
        return orjson.loads(written)
    except orjson.JSONDecodeError:
        return {"text": json_text(written)}


_HANDLERS: Mapping[
    str, Callable[[BedrockStreamDecoder, dict[str, Any]], Sequence[v1.StreamDelta]]
] = {
    "messageStart": lambda _, __: (),
    "contentBlockStart": BedrockStreamDecoder._block_start,
    "contentBlockDelta": BedrockStreamDecoder._block_delta,
    "contentBlockStop": BedrockStreamDecoder._block_stop,
    "messageStop": BedrockStreamDecoder._message_stop,
    "metadata": BedrockStreamDecoder._metadata,
}
# The names of Converse's events.
EVENTS = frozenset(_HANDLERS)
