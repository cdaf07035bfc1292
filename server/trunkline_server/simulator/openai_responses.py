"""The Responses API of the OpenAI dialect, whole and streamed.

Follows OpenAI's OpenAPI document and recorded answers. Reasoning is shown as a summary where one
is asked for, and encrypted where that is included; the simulated web search finds one page, when
the last user text holds the word "search" and a search tool is offered.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from trunkline_server.simulator.answer import Answer, Prompt
from trunkline_server.simulator.dialect import Call, Reply
from trunkline_server.simulator.openai_responses_request import SEARCHES, read_response
from trunkline_server.simulator.signature import token

_FOUND = {"url": "https://example.com/simulated", "title": "A simulated page"}
_CUT_SHORT = {"length": "max_output_tokens", "filter": "content_filter"}


def respond(call: Call) -> Reply:
    """POST /responses."""
    prompt = read_response(call)
    use = call.memory.implicit(("openai", call.key, call.name), prompt.units)
    answer = call.answer(prompt, use)
    items = list(_items(call, prompt, answer))
    if call.body.get("stream") is True:
        return Reply(pieces=_stream(call, answer, items), content_type="text/event-stream")
    return Reply(orjson.dumps(_response(call, answer, items)))


def _response(call: Call, answer: Answer, items: list[dict[str, Any]]) -> dict[str, Any]:
    """The response when it is over."""
    cut = _CUT_SHORT.get(answer.finish)
    return {
        **_begun(call),
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": cut} if cut else None,
        "output": items,
        "usage": {
            "input_tokens": answer.input_tokens,
            "input_tokens_details": {"cached_tokens": answer.cache.read, "cache_write_tokens": 0},
            "output_tokens": answer.output_tokens,
            "output_tokens_details": {"reasoning_tokens": answer.reasoning_tokens},
            "total_tokens": answer.input_tokens + answer.output_tokens,
        },
    }


def _begun(call: Call) -> dict[str, Any]:
    body = call.body
    reasoning = body.get("reasoning") or {}
    return {
        "id": f"resp_sim{call.number:012d}",
        "object": "response",
        "created_at": call.created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": call.honest_name,
        "output": [],
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
        "previous_response_id": None,
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "service_tier": "default",
        "store": body.get("store") is not False,
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_p": body.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": None,
        "user": None,
        "metadata": {},
    }


def _items(call: Call, prompt: Prompt, answer: Answer) -> Iterator[dict[str, Any]]:
    body = call.body
    include = body.get("include") or ()
    if answer.reasoning:
        shown = (body.get("reasoning") or {}).get("summary") is not None
        yield {
            "id": f"rs_sim{call.number:012d}",
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": answer.reasoning}] if shown else [],
            **(
                {"encrypted_content": token(answer.reasoning)}
                if "reasoning.encrypted_content" in include
                else {}
            ),
        }
    searched = "search" in prompt.last_user_text.lower() and any(
        tool["type"] in SEARCHES for tool in body.get("tools") or ()
    )
    if searched and answer.text:
        action: dict[str, Any] = {"type": "search", "query": prompt.last_user_text[:60]}
        if "web_search_call.action.sources" in include:
            action["sources"] = [{"type": "url", "url": _FOUND["url"]}]
        yield {
            "id": f"ws_sim{call.number:012d}",
            "type": "web_search_call",
            "status": "completed",
            "action": action,
        }
    if answer.text:
        # The first sentence cites what was found.
        end = answer.text.find(".") + 1
        cited = [{"type": "url_citation", "start_index": 0, "end_index": end, **_FOUND}]
        yield {
            "id": f"msg_sim{call.number:012d}",
            "type": "message",
            "status": "incomplete" if answer.finish in _CUT_SHORT else "completed",
            "role": "assistant",
            "content": [
                {
                    "type": "output_text",
                    "text": answer.text,
                    "annotations": cited if searched else [],
                    "logprobs": [],
                }
            ],
        }
    for i, wanted in enumerate(answer.calls):
        yield {
            "id": f"fc_sim{call.number:09d}x{i}",
            "type": "function_call",
            "status": "completed",
            "call_id": f"call_sim{call.number:09d}x{i}",
            "name": wanted.name,
            "arguments": wanted.arguments_json,
        }


def _stream(call: Call, answer: Answer, items: list[dict[str, Any]]) -> Iterator[bytes]:
    begun = _begun(call)
    ended = _response(call, answer, items)
    events = _events(call, begun, ended)
    for number, (kind, fields) in enumerate(events):
        data = orjson.dumps({"type": kind, "sequence_number": number, **fields})
        yield b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


_Event = tuple[str, Mapping[str, Any]]


def _events(call: Call, begun: dict[str, Any], ended: dict[str, Any]) -> Iterator[_Event]:
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    for index, item in enumerate(ended["output"]):
        yield "response.output_item.added", {"output_index": index, "item": _empty(item)}
        at = {"item_id": item["id"], "output_index": index}
        match item["type"]:
            case "reasoning":
                yield from _summary(call, item, at)
            case "message":
                yield from _text(call, item, at)
            case "function_call":
                for piece in call.pieces(item["arguments"]):
                    yield "response.function_call_arguments.delta", {**at, "delta": piece}
                done = {"name": item["name"], "arguments": item["arguments"]}
                yield "response.function_call_arguments.done", {**at, **done}
            case kind:
                for state in ("in_progress", "searching", "completed"):
                    yield f"response.{kind}.{state}", at
        yield "response.output_item.done", {"output_index": index, "item": item}
    yield f"response.{ended['status']}", {"response": ended}


def _empty(item: dict[str, Any]) -> dict[str, Any]:
    """An item at its beginning."""
    empty = {"content": [], "summary": [], "arguments": "", "status": "in_progress"}
    return {name: empty.get(name, value) for name, value in item.items() if name != "action"}


def _summary(call: Call, item: dict[str, Any], at: dict[str, Any]) -> Iterator[_Event]:
    for index, part in enumerate(item["summary"]):
        here = {**at, "summary_index": index}
        yield "response.reasoning_summary_part.added", {**here, "part": {**part, "text": ""}}
        for piece in call.pieces(part["text"]):
            yield "response.reasoning_summary_text.delta", {**here, "delta": piece}
        yield "response.reasoning_summary_text.done", {**here, "text": part["text"]}
        yield "response.reasoning_summary_part.done", {**here, "part": part}


def _text(call: Call, item: dict[str, Any], at: dict[str, Any]) -> Iterator[_Event]:
    for index, part in enumerate(item["content"]):
        here = {**at, "content_index": index}
        empty = {**part, "text": "", "annotations": []}
        yield "response.content_part.added", {**here, "part": empty}
        for piece in call.pieces(part["text"]):
            yield "response.output_text.delta", {**here, "delta": piece, "logprobs": []}
        for number, annotation in enumerate(part["annotations"]):
            noted = {"annotation_index": number, "annotation": annotation}
            yield "response.output_text.annotation.added", {**here, **noted}
        yield "response.output_text.done", {**here, "text": part["text"], "logprobs": []}
        yield "response.content_part.done", {**here, "part": part}
