"""Kept answers: a generation in one piece or as a stream, each from the other where exact."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.cache import wire


class Facts(NamedTuple):
    """What the books want to know of a kept answer. `saved` is what it cost when it was made,
    in nanos of a US dollar; unpriced, it says nothing, and estimated, it is not exact."""

    model: str
    provider: str
    deployment: str
    finish_reason: v1.FinishReason.ValueType
    input_tokens: int
    output_tokens: int
    saved: int
    unpriced: bool
    estimated: bool


# Bytes of the objects around the stored bytes: the answer, its facts, their numbers, headers of
# the bytes themselves. Names are shared between answers.
_OBJECTS = 480


@dataclass(frozen=True, slots=True)
class Streamed:
    """A streamed answer: start and end without their call's fields, the events of all deltas
    as they came, joined by `wire.delimited`."""

    start: bytes
    deltas: bytes
    end: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """One generation, in the form or forms in which it was asked for so far."""

    facts: Facts
    body: bytes | None = None
    stream: Streamed | None = None

    @property
    def size(self) -> int:
        """Bytes of memory."""
        size = _OBJECTS + (0 if self.body is None else len(self.body))
        if self.stream is not None:
            size += len(self.stream.start) + len(self.stream.deltas) + len(self.stream.end)
        return size

    def whole(self) -> "Answer | None":
        """The answer with a body, from the stream if need be; None if that is not exact."""
        if self.body is not None:
            return self
        body = None if self.stream is None else _joined(self.stream)
        return None if body is None else replace(self, body=body)

    def streamed(self) -> "Answer | None":
        """The answer with a stream, from the body if need be; None if that is not exact."""
        if self.stream is not None:
            return self
        stream = None if self.body is None else _parted(self.body)
        return None if stream is None else replace(self, stream=stream)


def of_response(response: v1.GenerateResponse) -> Answer:
    """A unary answer as it is kept."""
    saved = _spent(response.attempts, response.cost)
    return Answer(facts_of(response), body=wire.generate_body(response, saved))


def of_stream(start: v1.StreamStart, deltas: Sequence[bytes], end: v1.StreamEnd) -> Answer:
    """A streamed answer as it is kept; `deltas` are the serialised events."""
    stream = Streamed(wire.stream_start(start), wire.delimited(list(deltas)), shared_end(end))
    return Answer(facts_of_stream(start, end), stream=stream)


def shared_end(end: v1.StreamEnd) -> bytes:
    """What of an end every call gets alike."""
    return wire.stream_end(end, _spent(end.attempts, end.cost))


def facts_of_stream(start: v1.StreamStart, end: v1.StreamEnd) -> Facts:
    """What the books want to know of a streamed answer."""
    return facts_of(_summary(start, end))


def _summary(start: v1.StreamStart, end: v1.StreamEnd) -> v1.GenerateResponse:
    """What Generate would say of a streamed answer, but for the message."""
    return v1.GenerateResponse(
        model=end.model or start.model,
        provider=start.provider,
        deployment=start.deployment,
        finish_reason=end.finish_reason,
        vendor_finish_reason=end.vendor_finish_reason,
        usage=end.usage,
        cost=end.cost,
        decision=start.decision,
        attempts=end.attempts,
        filter_findings=end.filter_findings,
    )


def facts_of(response: v1.GenerateResponse) -> Facts:
    """What the books want to know of an answer."""
    usage = response.usage
    cost = _spent(response.attempts, response.cost)
    return Facts(
        model=sys.intern(response.model),
        provider=sys.intern(response.provider),
        deployment=sys.intern(response.deployment),
        finish_reason=response.finish_reason,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        saved=cost.total,
        unpriced=cost.unpriced,
        estimated=cost.estimated,
    )


def _spent(attempts: Iterable[v1.Attempt], cost: v1.Cost) -> v1.Cost:
    """What the attempt cost that gave the answer; what failed beside it would not be spent
    again. `cost` where no attempts are known."""
    for attempt in attempts:
        if attempt.outcome == v1.ATTEMPT_OUTCOME_SUCCEEDED:
            return attempt.cost
    return cost


def _has_kinds(message: v1.Message) -> bool:
    return all(part.WhichOneof("kind") for part in message.parts)


def _joined(stream: Streamed) -> bytes | None:
    """The body that Generate would have given. A delta of a kind unknown here cannot be
    joined, nor can a part be given that has no kind."""
    assembler = MessageAssembler()
    for event in wire.split(stream.deltas):
        delta = v1.StreamGenerateResponse.FromString(event).delta
        if delta.WhichOneof("kind") is None:
            return None
        assembler.add(delta)
    message = assembler.message()
    if not _has_kinds(message):
        return None
    start, end = v1.StreamStart.FromString(stream.start), v1.StreamEnd.FromString(stream.end)
    response = _summary(start, end)
    response.message.CopyFrom(message)
    return wire.generate_body(response, end.saved)


def _parted(body: bytes) -> Streamed | None:
    """The stream that would have given this body: each part in as few deltas as it takes.
    None when joining them does not give the very message."""
    response = v1.GenerateResponse.FromString(body)
    deltas = [
        delta for index, part in enumerate(response.message.parts) for delta in _deltas(index, part)
    ]
    deltas += [v1.StreamDelta(source=source) for source in response.message.sources]
    deltas += [v1.StreamDelta(citation=citation) for citation in response.message.citations]
    assembler = MessageAssembler()
    for delta in deltas:
        assembler.add(delta)
    if assembler.message() != response.message or not _has_kinds(response.message):
        return None
    events = [v1.StreamGenerateResponse(delta=delta).SerializeToString() for delta in deltas]
    start = v1.StreamStart(
        model=response.model,
        provider=response.provider,
        deployment=response.deployment,
        decision=response.decision,
    )
    end = v1.StreamEnd(
        finish_reason=response.finish_reason,
        vendor_finish_reason=response.vendor_finish_reason,
        usage=response.usage,
        cost=response.cost,
        model=response.model,
        filter_findings=response.filter_findings,
    )
    last = wire.stream_end(end, response.saved)
    return Streamed(wire.stream_start(start), wire.delimited(events), last)


def _deltas(index: int, part: v1.Part) -> list[v1.StreamDelta]:
    kind = part.WhichOneof("kind")
    delta = v1.StreamDelta(part_index=index)
    if kind == "text":
        delta.text = part.text
    elif kind == "tool_call":
        call = part.tool_call
        delta.tool_call.id = call.id
        delta.tool_call.name = call.name
        delta.tool_call.arguments_json = call.arguments_json
    elif kind == "reasoning" and not (part.reasoning.redacted_data or part.reasoning.id):
        delta.reasoning = part.reasoning.text
    else:
        delta.part.CopyFrom(part)
        return [delta]
    if not part.HasField("signature"):
        return [delta]
    signature = v1.StreamDelta(part_index=index, signature=part.signature)
    return [delta, signature]
