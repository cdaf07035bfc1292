"""From the contract's events to the chunks of a streamed chat completion."""

from collections.abc import Iterator, Sequence

from trunkline import v1
from trunkline_server.openai_face.chat_answer import (
    FINISH_REASONS,
    annotations,
    completion_id,
    image,
    spent,
    usage,
)
from trunkline_server.openai_face.reading import Json


class ChunkWriter:
    """Turns the events of one answer into chunks, in order."""

    def __init__(self, asked: str, created: int, *, include_usage: bool) -> None:
        """As `chat_answer.completion`; `include_usage` adds a last chunk that holds the usage, and
        a null in all others, as OpenAI does."""
        self.id = ""
        self._model = asked
        self._created = created
        self._include_usage = include_usage
        self._start = v1.StreamStart()
        # Which tool call a part is, in the order of their beginning.
        self._calls: dict[int, int] = {}
        self._sources: list[v1.Source] = []
        # How much text each part has, for citations, which count within a part.
        self._lengths: dict[int, int] = {}

    def chunks(self, event: v1.StreamGenerateResponse) -> Iterator[Json]:
        """The chunks that an event gives, none for one that says nothing to a caller."""
        match event.WhichOneof("event"):
            case "start":
                self._start = event.start
                self.id = event.start.id
                self._model = event.start.model or self._model
                yield self._chunk({"role": "assistant", "content": "", "refusal": None})
            case "delta":
                for delta in self._deltas(event.delta):
                    yield self._chunk(delta)
            case "end":
                yield from self._end(event.end)

    def _deltas(self, delta: v1.StreamDelta) -> Sequence[Json]:
        match delta.WhichOneof("kind"):
            case "text":
                index = delta.part_index
                self._lengths[index] = self._lengths.get(index, 0) + len(delta.text)
                return [{"content": delta.text}]
            case "reasoning":
                return [{"reasoning_content": delta.reasoning}]
            case "tool_call":
                return [{"tool_calls": [self._tool_call(delta)]}]
            case "part":
                return self._part(delta)
            case "source":
                self._sources.append(v1.Source.FromString(delta.source.SerializeToString()))
            case "citation":
                starts = {
                    index: sum(n for part, n in self._lengths.items() if part < index)
                    for index in (delta.citation.part_index,)
                }
                found = annotations([delta.citation], self._sources, starts)
                return [{"annotations": found}] if found else []
        # Signatures and vendor items have no place in this dialect.
        return []

    def _part(self, delta: v1.StreamDelta) -> Sequence[Json]:
        part = delta.part
        match part.WhichOneof("kind"):
            case "text":
                self._lengths[delta.part_index] = len(part.text)
                return [{"content": part.text}]
            case "image":
                return [{"images": [image(part.image)]}]
            case _:
                return []

    def _tool_call(self, delta: v1.StreamDelta) -> Json:
        piece = delta.tool_call
        known = self._calls.get(delta.part_index)
        index = self._calls.setdefault(delta.part_index, len(self._calls))
        function: Json = {"arguments": piece.arguments_json}
        if known is not None:
            return {"index": index, "function": function}
        function["name"] = piece.name
        return {"index": index, "id": piece.id, "type": "function", "function": function}

    def _end(self, end: v1.StreamEnd) -> Iterator[Json]:
        self._model = end.model or self._model
        last = self._chunk({}, FINISH_REASONS[end.finish_reason])
        last["trunkline"] = {
            "provider": self._start.provider,
            "deployment": self._start.deployment,
            **spent(end.cost, end.cache_status),
        }
        yield last
        if self._include_usage:
            chunk = self._chunk({})
            chunk["choices"] = []
            chunk["usage"] = usage(end.usage)
            yield chunk

    def _chunk(self, delta: Json, finish: str | None = None) -> Json:
        chunk: Json = {
            "id": completion_id(self.id),
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        }
        if self._include_usage:
            chunk["usage"] = None
        return chunk
