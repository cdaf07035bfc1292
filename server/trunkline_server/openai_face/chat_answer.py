"""From the contract's GenerateResponse to a chat completion.

The shapes are those of OpenAI's own SDK. What the contract has besides goes by names that other
OpenAI-like hosts use, `reasoning_content` and `images`, and by `trunkline`.
"""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence

from trunkline import v1
from trunkline_server.openai_face.reading import Json

FINISH_REASONS: Mapping[v1.FinishReason.ValueType, str] = {
    v1.FINISH_REASON_UNSPECIFIED: "stop",
    v1.FINISH_REASON_STOP: "stop",
    v1.FINISH_REASON_LENGTH: "length",
    v1.FINISH_REASON_TOOL_CALLS: "tool_calls",
    v1.FINISH_REASON_CONTENT_FILTER: "content_filter",
    # OpenAI ends refusals so too; the refusal itself stands in the message.
    v1.FINISH_REASON_REFUSAL: "stop",
    v1.FINISH_REASON_OTHER: "stop",
}


def completion(answer: v1.GenerateResponse, asked: str, created: int) -> Json:
    """The chat completion. `asked` is the model that the caller named, `created` is in Unix
    seconds."""
    return {
        "id": completion_id(answer.id),
        "object": "chat.completion",
        "created": created,
        "model": answer.model or asked,
        "choices": [
            {
                "index": 0,
                "message": _message(answer),
                "logprobs": None,
                "finish_reason": FINISH_REASONS[answer.finish_reason],
            }
        ],
        "usage": usage(answer.usage),
        "trunkline": particulars(answer),
    }


def completion_id(call: str) -> str:
    """A call's id as OpenAI would have it."""
    return f"chatcmpl-{call}"


def usage(counted: v1.Usage) -> Json:
    """What was consumed; both dialects count parts in their totals."""
    return {
        "prompt_tokens": counted.input_tokens,
        "completion_tokens": counted.output_tokens,
        "total_tokens": counted.input_tokens + counted.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": counted.cached_input_tokens,
            "audio_tokens": counted.input_audio_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": counted.reasoning_tokens,
            "audio_tokens": counted.output_audio_tokens,
        },
    }


def particulars(answer: v1.GenerateResponse | v1.EmbedResponse) -> Json:
    """Who answered and what it cost, which OpenAI has no field for."""
    return {
        "provider": answer.provider,
        "deployment": answer.deployment,
        **spent(answer.cost, answer.cache_status),
    }


def spent(cost: v1.Cost, cached: v1.CacheStatus.ValueType) -> Json:
    """The cost in billionths of a US dollar, and what the answer cache did."""
    return {
        "cost_nanos": None if cost.unpriced else cost.total,
        "cache": v1.CacheStatus.Name(cached).removeprefix("CACHE_STATUS_").lower(),
    }


def _message(answer: v1.GenerateResponse) -> Json:
    parts = answer.message.parts
    texts = [part.text for part in parts if part.HasField("text")]
    text = "".join(texts) if texts else None
    refused = answer.finish_reason == v1.FINISH_REASON_REFUSAL
    message: Json = {
        "role": "assistant",
        "content": None if refused else text,
        "refusal": text if refused else None,
    }
    calls = [part.tool_call for part in parts if part.HasField("tool_call")]
    if calls:
        message["tool_calls"] = [tool_call(call) for call in calls]
    thoughts = [part.reasoning.text for part in parts if part.HasField("reasoning")]
    if any(thoughts):
        message["reasoning_content"] = "".join(thoughts)
    images = [part.image for part in parts if part.HasField("image")]
    if images:
        message["images"] = [image(each) for each in images]
    found = annotations(answer.message.citations, answer.message.sources, _starts(parts))
    if found:
        message["annotations"] = found
    return message


def tool_call(call: v1.ToolCall) -> Json:
    """A call of a tool."""
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments_json or "{}"},
    }


def image(made: v1.Image) -> Json:
    """A picture that the model made, by its address or in place."""
    url = made.uri
    if made.data:
        url = f"data:{made.media_type};base64,{b64encode(made.data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def annotations(
    citations: Iterable[v1.Citation], sources: Sequence[v1.Source], starts: Mapping[int, int]
) -> list[Json]:
    """Citations of pages. `starts` is where each text part begins in the whole text."""
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "start_index": starts.get(citation.part_index, 0) + citation.start,
                "end_index": starts.get(citation.part_index, 0) + citation.end,
                "title": sources[index].title,
                "url": sources[index].uri,
            },
        }
        for citation in citations
        for index in citation.source_indexes
        if index < len(sources) and sources[index].uri
    ]


def _starts(parts: Iterable[v1.Part]) -> Mapping[int, int]:
    starts, length = {}, 0
    for index, part in enumerate(parts):
        starts[index] = length
        length += len(part.text)
    return starts
