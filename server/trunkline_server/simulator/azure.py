"""Azure OpenAI: OpenAI's dialect below deployments and on the v1 surface, with what its content
filter says.

Follows https://learn.microsoft.com/azure/ai-foundry/openai/reference and its page on content
filtering; the failures that were recorded are in the words of the recordings.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import orjson
from aiohttp import web

from trunkline_server.simulator.dialect import Call, Endpoint, ErrorReply, Quota, Reply
from trunkline_server.simulator.openai import OpenAI, chat
from trunkline_server.simulator.openai_embeddings import embeddings
from trunkline_server.simulator.vendor_error import VendorError

_DEPLOYMENT = "/azure/openai/deployments/{deployment}"
_V1 = "/azure/openai/v1"
_CATEGORIES = ("hate", "self_harm", "sexual", "violence")
_DENIED = (
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a "
    "valid key for an active subscription and use a correct regional API endpoint for your "
    "resource."
)
_NO_DEPLOYMENT = (
    "The API deployment for this resource does not exist. If you created the deployment within "
    "the last 5 minutes, please wait a moment and try again."
)
_FILTERED = (
    "The response was filtered due to the prompt triggering Azure OpenAI's content management "
    "policy. Please modify your prompt and retry."
)


def _verdict(filtered: bool) -> dict[str, Any]:
    """What the filter says of a text; of a filtered one, that it hates."""
    verdict: dict[str, Any] = {
        name: {"filtered": False, "severity": "safe"} for name in _CATEGORIES
    }
    if filtered:
        verdict["hate"] = {"filtered": True, "severity": "high"}
    return verdict


def _prompt_verdict(filtered: bool) -> dict[str, Any]:
    return {"jailbreak": {"detected": False, "filtered": False}, **_verdict(filtered)}


class Azure(OpenAI):
    """Azure's paths, errors and headers."""

    name = "azure"
    listings = ("/azure/openai/v1/models", "/azure/openai/v1/models/{model}")

    @property
    def endpoints(self) -> Iterable[Endpoint]:
        return tuple(
            Endpoint(f"{prefix}{path}", run)
            for prefix in (_DEPLOYMENT, _V1)
            for path, run in (
                ("/chat/completions", _judged(chat)),
                ("/embeddings", embeddings),
            )
        )

    def key(self, request: web.BaseRequest) -> str:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        key = request.headers.get("api-key", "") or (token if scheme.lower() == "bearer" else "")
        if key in {"", "invalid"}:
            raise VendorError("authentication", _DENIED, code="401")
        return key

    def target(self, request: web.Request, body: Mapping[str, Any]) -> tuple[str, str]:
        deployment = request.match_info.get("deployment")
        if deployment is None:
            return super().target(request, body)
        if not request.query.get("api-version"):
            raise VendorError("not_found", "Resource not found", code="404")
        return deployment, ""

    def headers(self, number: int, quota: Quota | None) -> dict[str, str]:
        headers = super().headers(number, quota)
        headers["apim-request-id"] = headers.pop("x-request-id")
        return {**headers, "x-ms-region": "Sweden Central"}

    def error(self, refusal: VendorError, request: web.BaseRequest) -> ErrorReply:
        reply = super().error(refusal, request)
        if refusal.kind == "authentication":
            body = {"error": {"code": "401", "message": _DENIED}}
        elif refusal.kind == "model":
            body = {"error": {"code": "DeploymentNotFound", "message": _NO_DEPLOYMENT}}
        elif refusal.kind == "rate_limit":
            message = (
                "Requests to the ChatCompletions_Create Operation have exceeded the call rate "
                f"limit of your tier. Please retry after {refusal.retry_after or 1:g} seconds."
            )
            body = {"error": {"code": "429", "message": message}}
        elif refusal.kind == "filter":
            body = {"error": _filter_error()}
        else:
            return reply
        return ErrorReply(reply.status, orjson.dumps(body), reply.headers)

    def stream_error(self, refusal: VendorError) -> bytes:
        if refusal.kind == "filter":
            return b"data: " + orjson.dumps({"error": _filter_error()}) + b"\n\n"
        return super().stream_error(refusal)


def _filter_error() -> dict[str, Any]:
    inner = {
        "code": "ResponsibleAIPolicyViolation",
        "content_filter_result": _prompt_verdict(filtered=True),
    }
    return {
        "message": _FILTERED,
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": inner,
    }


def _judged(run: Callable[[Call], Reply]) -> Callable[[Call], Reply]:
    def judged(call: Call) -> Reply:
        reply = run(call)
        prompt = [{"prompt_index": 0, "content_filter_results": _prompt_verdict(filtered=False)}]
        if reply.pieces is not None:
            pieces = _judged_pieces(reply.pieces, prompt)
            return Reply(pieces=pieces, content_type=reply.content_type)
        body = orjson.loads(reply.body)
        body["prompt_filter_results"] = prompt
        for choice in body["choices"]:
            filtered = choice["finish_reason"] == "content_filter"
            choice["content_filter_results"] = _verdict(filtered)
        return Reply(orjson.dumps(body))

    return judged


def _judged_pieces(pieces: Iterable[bytes], prompt: list[dict[str, Any]]) -> Iterator[bytes]:
    first = {"choices": [], "created": 0, "id": "", "model": "", "object": ""}
    yield b"data: " + orjson.dumps({**first, "prompt_filter_results": prompt}) + b"\n\n"
    for piece in pieces:
        data = piece.removeprefix(b"data: ").strip()
        if data == b"[DONE]":
            yield piece
            continue
        chunk = orjson.loads(data)
        for choice in chunk["choices"]:
            finish = choice["finish_reason"]
            written = bool(choice["delta"].get("content"))
            said = written or finish == "content_filter"
            verdict = _verdict(finish == "content_filter") if said else {}
            choice["content_filter_results"] = verdict
        yield b"data: " + orjson.dumps(chunk) + b"\n\n"
