"""Reads whole answers of the Responses API, and the items that streams are made of too.

The shapes are those of recorded answers (tests/corpus/test_responses.py) and of the types of
OpenAI's own SDK, which read the golden replies too (tests/golden/openai_responses).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.openai_errors import reported_error
from trunkline_server.providers.openai_filters import response_findings
from trunkline_server.providers.openai_messages import Json
from trunkline_server.providers.openai_parts import load, made_call_id, senseless, text_of
from trunkline_server.providers.openai_responses_items import (
    DIALECT,
    PARAGRAPH,
    REASONING_LISTS,
)
from trunkline_server.providers.openai_usage import read_usage
from trunkline_server.providers.references import References

CALLS = frozenset({"function_call", "custom_tool_call"})
# The vendor's own tools that the caller has to carry out or to allow.
_WAITING = frozenset({"apply_patch_call", "computer_call", "local_shell_call"})
_CUT_SHORT: Mapping[str, v1.FinishReason.ValueType] = {
    "max_output_tokens": v1.FINISH_REASON_LENGTH,
    "max_tokens": v1.FINISH_REASON_LENGTH,
    "content_filter": v1.FINISH_REASON_CONTENT_FILTER,
}
_OWN_OF_MESSAGE = frozenset({"type", "role", "content"})
_OWN_OF_CALL = frozenset({"call_id", "name", "arguments", "input"})
_OWN_OF_REASONING = frozenset({"type", "id", "encrypted_content", "summary", "content"})


def decode_response(body: bytes, into: v1.GenerateResponse) -> None:
    """Fills the answer of /responses; raises as Codec.decode_generate says."""
    document = load(body)
    raise_failure(document)
    items = output_items(document)
    if items is None:
        raise senseless("the answer holds no output")
    into.model = text_of(document.get("model"))
    answer = into.message
    answer.role = v1.ROLE_ASSISTANT
    response_id = text_of(document.get("id"))
    references = References()
    outcome = Outcome()
    for place, item in enumerate(items):
        outcome.note(item)
        if item.get("type") == "message":
            for piece in pieces_of(item):
                part = text_part(item, piece)
                if part.text:
                    answer.parts.append(part)
                    cite(piece, len(answer.parts) - 1, references)
        else:
            answer.parts.append(part_of(item, response_id, place))
            note_sources(item, references)
    references.fill(answer)
    into.finish_reason, into.vendor_finish_reason = outcome.finish(document)
    into.filter_findings.extend(response_findings(document))
    usage = document.get("usage")
    if isinstance(usage, dict):
        read_response_usage(usage, into.usage)
        into.usage.search_units = outcome.searches


def raise_failure(document: Json) -> None:
    """Raises what a response reports that failed, or that is an error itself."""
    error = reported_error(document)
    status = text_of(document.get("status"))
    if error is None and status in {"failed", "cancelled"}:
        error = UpstreamError(
            v1.ERROR_REASON_SERVICE_UNAVAILABLE,
            f"the provider says no more than that the response is {status}",
            http_status=200,
        )
    if error is None and status in {"queued", "in_progress"}:
        error = senseless(f"the answer is still {status}")
    if error is not None:
        raise error


def output_items(document: Json) -> list[Json] | None:
    """The items of a response; None where it has no list of them."""
    output = document.get("output")
    if not isinstance(output, list):
        return None
    return [item for item in output if isinstance(item, dict)]


class Outcome:
    """What the items of an answer say of its end."""

    __slots__ = ("_answered", "_pending", "calls", "refused", "searches")

    def __init__(self) -> None:
        self.calls = False
        self.refused = False
        # The searches of the web that the vendor ran.
        self.searches = 0
        self._pending: list[str] = []
        self._answered: set[str] = set()

    def note(self, item: Json) -> None:
        """Takes a whole item."""
        kind = text_of(item.get("type"))
        if kind in CALLS:
            self.calls = True
        elif kind == "message":
            self.refused |= any(piece.get("type") == "refusal" for piece in pieces_of(item))
        elif kind == "web_search_call":
            self.searches += item.get("status", "completed") == "completed"
        elif kind == "mcp_approval_request" or (
            kind == "tool_search_call" and item.get("execution") == "client"
        ):
            self.calls = True
        elif kind in _WAITING or kind == "shell_call":
            self._pending.append(text_of(item.get("call_id")))
        elif kind.endswith("_output"):
            self._answered.add(text_of(item.get("call_id")))

    def finish(self, document: Json) -> tuple[v1.FinishReason.ValueType, str]:
        """Why a response ended, and the vendor's word for it."""
        word = text_of(document.get("status"))
        if word == "incomplete":
            details = document.get("incomplete_details")
            reason = text_of(details.get("reason")) if isinstance(details, dict) else ""
            return _CUT_SHORT.get(reason, v1.FINISH_REASON_OTHER), reason or word
        if word not in {"", "completed"}:
            return v1.FINISH_REASON_OTHER, word
        if self.refused:
            return v1.FINISH_REASON_REFUSAL, word
        if self.calls or any(call not in self._answered for call in self._pending):
            return v1.FINISH_REASON_TOOL_CALLS, word
        return (v1.FINISH_REASON_STOP if word else v1.FINISH_REASON_UNSPECIFIED), word


def pieces_of(item: Json) -> list[Json]:
    """The pieces of a message's content."""
    content = item.get("content")
    return (
        [piece for piece in content if isinstance(piece, dict)] if isinstance(content, list) else []
    )


def piece_text(piece: Json) -> str:
    """What a piece of a message says."""
    return text_of(piece.get("text")) or text_of(piece.get("refusal"))


def text_part(item: Json, piece: Json) -> v1.Part:
    """A piece of a message."""
    return v1.Part(text=piece_text(piece), signature=message_signature(item, piece))


def message_signature(item: Json, piece: Json) -> v1.Signature | None:
    """What a message must come back with: its id, and what else it says of itself."""
    rest = _rest(item, _OWN_OF_MESSAGE)
    if piece.get("type") == "refusal":
        rest["refusal"] = True
    return _signature(rest) if rest else None


def part_of(item: Json, response_id: str, place: int) -> v1.Part:
    """The part of an item that is no message; `place` is its number in the answer."""
    kind = text_of(item.get("type"))
    if kind in CALLS:
        call_id, name, arguments = call_fields(item, response_id, place)
        call = v1.ToolCall(id=call_id, name=name, arguments_json=arguments)
        return v1.Part(tool_call=call, signature=call_signature(item))
    if kind == "reasoning":
        part = v1.Part(reasoning=v1.Reasoning(text=reasoning_text(item)))
        part.MergeFrom(reasoning_rest(item))
        return part
    text = orjson.dumps(item).decode()
    return v1.Part(vendor_item=v1.VendorItem(dialect=DIALECT, type=kind, json=text))


def call_fields(item: Json, response_id: str, place: int) -> tuple[str, str, str]:
    """(id, name, arguments) of a call. A custom tool's input stands for the arguments."""
    call_id = text_of(item.get("call_id")) or text_of(item.get("id"))
    arguments = item.get("input") if item.get("type") == "custom_tool_call" else None
    return (
        call_id or made_call_id(response_id, place),
        text_of(item.get("name")),
        text_of(item.get("arguments") if arguments is None else arguments),
    )


def call_signature(item: Json) -> v1.Signature | None:
    """What a call must come back with beside its own fields."""
    rest = _rest(item, _OWN_OF_CALL)
    if rest.get("type") == "function_call":
        del rest["type"]
    return _signature(rest) if rest else None


def reasoning_text(item: Json) -> str:
    """The readable reasoning: its summary, and what the host shows of the rest."""
    return PARAGRAPH.join(text for _, texts in _reasoning_lists(item) for text in texts if text)


def reasoning_rest(item: Json) -> v1.Part:
    """All of a piece of reasoning but its text. The signature notes how the text was cut."""
    rest = _rest(item, _OWN_OF_REASONING)
    for name, texts in _reasoning_lists(item):
        if texts or name == "content":
            rest[name] = [len(text) for text in texts]
    reasoning = v1.Reasoning(
        redacted_data=text_of(item.get("encrypted_content")), id=text_of(item.get("id"))
    )
    return v1.Part(reasoning=reasoning, signature=_signature(rest))


def _reasoning_lists(item: Json) -> list[tuple[str, list[str]]]:
    lists = []
    for name, _ in REASONING_LISTS:
        entries = item.get(name)
        if isinstance(entries, list):
            texts = [text_of(entry.get("text")) for entry in entries if isinstance(entry, dict)]
            lists.append((name, texts))
    return lists


def _rest(item: Json, own: frozenset[str]) -> Json:
    return {
        name: value
        for name, value in item.items()
        if name not in own and value is not None and (name, value) != ("status", "completed")
    }


def _signature(rest: Json) -> v1.Signature:
    value = orjson.dumps(rest, option=orjson.OPT_SORT_KEYS).decode() if rest else ""
    return v1.Signature(dialect=DIALECT, value=value)


def cite(piece: Json, part_index: int, references: References) -> None:
    """Notes the annotations of a piece of text."""
    annotations = piece.get("annotations")
    for annotation in annotations if isinstance(annotations, list) else ():
        if isinstance(annotation, dict):
            note_annotation(annotation, part_index, references)


def note_annotation(annotation: Json, part_index: int, references: References) -> None:
    """Notes one annotation: a page, a file, or a file that the vendor's code has made."""
    source = v1.Source(
        id=text_of(annotation.get("file_id")),
        uri=text_of(annotation.get("url")),
        title=text_of(annotation.get("title")) or text_of(annotation.get("filename")),
    )
    if not (source.id or source.uri):
        return
    citation = v1.Citation(
        part_index=part_index,
        # A file's citation says only where it stands.
        start=_place(annotation.get("start_index", annotation.get("index"))),
        end=_place(annotation.get("end_index")),
    )
    references.cite(citation, (source,))


def note_sources(item: Json, references: References) -> None:
    """Notes what a search of the vendor's found, where it tells."""
    action = item.get("action")
    for found in _objects(action.get("sources") if isinstance(action, dict) else None):
        if found.get("url"):
            references.source(
                v1.Source(uri=text_of(found["url"]), title=text_of(found.get("title")))
            )
    if item.get("type") == "file_search_call":
        for found in _objects(item.get("results")):
            references.source(
                v1.Source(
                    id=text_of(found.get("file_id")),
                    title=text_of(found.get("filename")),
                    snippet=text_of(found.get("text")),
                )
            )


def _objects(entries: Any) -> Iterable[Json]:
    return [each for each in entries if isinstance(each, dict)] if isinstance(entries, list) else ()


def _place(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 2**31 else 0


def read_response_usage(usage: Json, into: v1.Usage) -> None:
    """Replaces `into` with the vendor's counts, which are those of chat completions by other
    names."""
    read_usage(
        {
            "prompt_tokens": usage.get("input_tokens"),
            "completion_tokens": usage.get("output_tokens"),
            "total_tokens": usage.get("total_tokens"),
            "prompt_tokens_details": usage.get("input_tokens_details"),
            "completion_tokens_details": usage.get("output_tokens_details"),
        },
        into,
    )
