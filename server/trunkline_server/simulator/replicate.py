"""The Replicate dialect: predictions, created, looked at, streamed and cancelled.

Follows https://replicate.com/docs/reference/http. Other than the vendors beside it, this one
works on when its caller has gone, and until it is told to stop.
"""

import re
from collections.abc import AsyncIterator
from typing import Any

import orjson
from aiohttp import web

from trunkline_server.simulator import tokens
from trunkline_server.simulator.answer import Prompt, compose
from trunkline_server.simulator.course import State
from trunkline_server.simulator.models import MODELS, honest_name
from trunkline_server.simulator.prompt_cache import CacheUse
from trunkline_server.simulator.replicate_predictions import Prediction, Predictions
from trunkline_server.simulator.script import (
    EARLY_FAULTS,
    SCRIPT_HEADER,
    Script,
    ScriptError,
    resolve,
    split_model,
)
from trunkline_server.simulator.sending import fail_early
from trunkline_server.simulator.vendor_error import VendorError, kind_of_status

NAME = "replicate"
_PREFIX = "/replicate/v1"
# Kind of failure: HTTP status, title and usual detail.
_ERRORS = {
    "invalid": (422, "Input validation failed", "The request is invalid."),
    "authentication": (401, "Unauthenticated", "You did not pass a valid authentication token"),
    "permission": (403, "Forbidden", "You do not have permission to perform this action."),
    "not_found": (404, "Not found", "The requested resource could not be found."),
    "model": (404, "Not found", "The requested resource could not be found."),
    "rate_limit": (429, "Throttled", "Request was throttled. Expected available in 1 second."),
    "quota": (402, "Insufficient credit", "You have insufficient credit to run this model."),
    "context": (422, "Input validation failed", "The prompt is too long."),
    "filter": (422, "Input validation failed", "The input was flagged as sensitive. (E005)"),
    "overloaded": (503, "Service unavailable", "Service is temporarily unavailable."),
    "timeout": (504, "Gateway timeout", "The request timed out."),
    "too_large": (413, "Payload too large", "The request is too large."),
    "server": (500, "Internal server error", "Something went wrong."),
}  # fmt: skip
_WAIT = re.compile(r"wait(?:=(\d{1,2}))?")
_LIFE = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_NUMBERS = ("temperature", "top_p", "top_k", "max_tokens", "seed")


class Replicate:
    """The vendor: its paths below /replicate/v1, and its predictions."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._predictions = Predictions()

    def add_to(self, app: web.Application) -> None:
        """Adds its paths, and ends its work with the application."""
        for method, path, handler in (
            ("POST", "/predictions", self._create),
            ("POST", "/models/{owner}/{name}/predictions", self._create),
            ("POST", "/deployments/{owner}/{name}/predictions", self._create),
            ("GET", "/predictions", self._list),
            ("GET", "/predictions/{id}", self._show),
            ("POST", "/predictions/{id}/cancel", self._cancel),
            ("GET", "/stream/{id}", self._stream),
            ("GET", "/account", self._account),
        ):
            app.router.add_route(method, _PREFIX + path, _told(handler))
        app.router.add_route("*", "/replicate{tail:.*}", _told(self._unknown))
        app.on_cleanup.append(self._close)

    async def _close(self, _: web.Application) -> None:
        await self._predictions.close()

    async def _create(self, request: web.Request) -> web.StreamResponse:
        state = self._state
        state.number += 1
        number = state.number
        key = _key(request)
        body = await _body(request)
        model, version = _model(request, body)
        name, _ = split_model(model)
        honest = honest_name(name.rpartition("/")[2])
        state.counters.called(NAME, honest)
        header = request.headers.get(SCRIPT_HEADER, "")
        try:
            script = resolve(model.rpartition("/")[2], "", header, state.defaults)
        except ScriptError as error:
            raise VendorError("invalid", str(error)) from None
        if script.rpm and not state.limit.take(f"{NAME} {key}", script.rpm)[0]:
            raise VendorError("rate_limit", retry_after=1)
        fault = self._strike(script, f"{NAME} {model} {header}")
        if fault in EARLY_FAULTS:
            return await fail_early(request, fault, "application/json", {})
        prediction = Prediction(
            id=f"sim{number:023d}",
            model=f"{name.rpartition('/')[0] or 'sim'}/{honest}",
            version=version or "hidden",
            input=_input(body),
            answer=compose(_prompt(honest, _input(body)), CacheUse(), length=script.tokens),
            script=script,
            fault=fault,
        )
        self._predictions.begin(prediction, _life(request))
        wait = _WAIT.fullmatch(request.headers.get("prefer", ""))
        if wait:
            await prediction.wait(float(wait[1] or 60))
        return _json(prediction.document(_base(request)), 201)

    def _strike(self, script: Script, words: str) -> str:
        """The fault of a call that has one. Raises VendorError for one that is refused."""
        state = self._state
        if not state.strikes.strikes(words, script):
            return ""
        state.counters.faults[script.fault or script.error or str(script.status)] += 1
        after = None if script.retry_after < 0 else script.retry_after
        if script.error or script.status:
            kind = script.error or kind_of_status(script.status)
            raise VendorError(kind, status=script.status, retry_after=after)
        return script.fault

    async def _list(self, request: web.Request) -> web.Response:
        _key(request)
        base = _base(request)
        found = [each.document(base) for each in self._predictions.all()[:100]]
        return _json({"next": None, "previous": None, "results": found})

    async def _show(self, request: web.Request) -> web.Response:
        return _json(self._found(request).document(_base(request)))

    async def _cancel(self, request: web.Request) -> web.Response:
        prediction = self._found(request)
        await request.read()
        if not prediction.over:
            self._state.counters.gone(NAME, prediction.model.rpartition("/")[2])
        self._predictions.cancel(prediction)
        return _json(prediction.document(_base(request)))

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        prediction = self._found(request)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        async for event in _events(prediction):
            await response.write(event)
        await response.write_eof()
        return response

    async def _account(self, request: web.Request) -> web.Response:
        _key(request)
        return _json({"type": "organization", "username": "sim", "name": "Simulated"})

    async def _unknown(self, _: web.Request) -> web.Response:
        raise VendorError("not_found")

    def _found(self, request: web.Request) -> Prediction:
        _key(request)
        prediction = self._predictions.find(request.match_info["id"])
        if prediction is None:
            raise VendorError("not_found")
        return prediction


def _told(handler: Any) -> Any:
    """A handler whose refusals are told in the vendor's shape."""

    async def run(request: web.Request) -> web.StreamResponse:
        try:
            answer: web.StreamResponse = await handler(request)
        except VendorError as refusal:
            return _refused(refusal)
        return answer

    return run


def _refused(refusal: VendorError) -> web.Response:
    status, title, detail = _ERRORS[refusal.kind]
    body: dict[str, Any] = {
        "title": title,
        "detail": refusal.message or detail,
        "status": refusal.status or status,
    }
    if refusal.param:
        body["invalid_fields"] = [
            {"type": "invalid", "field": refusal.param, "description": body["detail"]}
        ]
    response = _json(body, body["status"])
    if refusal.retry_after is not None:
        response.headers["retry-after"] = f"{refusal.retry_after:g}"
    return response


async def _events(prediction: Prediction) -> AsyncIterator[bytes]:
    number = 0
    async for piece in prediction.pieces():
        yield _event("output", number, piece)
        number += 1
    reason = {"canceled": "canceled", "failed": "error"}.get(prediction.status)
    if prediction.status == "failed":
        yield _event("error", number, orjson.dumps({"detail": prediction.error}).decode())
    yield _event("done", number + 1, orjson.dumps({"reason": reason} if reason else {}).decode())


def _event(name: str, number: int, text: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in text.split("\n"))
    return f"event: {name}\nid: {number}:0\n{lines}\n".encode()


def _json(document: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(document), status=status, content_type="application/json")


def _base(request: web.Request) -> str:
    return f"{request.scheme}://{request.host}{_PREFIX}"


def _key(request: web.Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() not in {"bearer", "token"} or not key or key == "invalid":
        raise VendorError("authentication")
    return key


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.read())
    except orjson.JSONDecodeError:
        raise VendorError("invalid", "The request body is not valid JSON.", status=400) from None
    if not isinstance(body, dict):
        raise VendorError("invalid", "The request body is not a JSON object.", status=400)
    return body


def _model(request: web.Request, body: dict[str, Any]) -> tuple[str, str]:
    """What is to be run, by the path or by the body's version."""
    if "name" in request.match_info:
        return f"{request.match_info['owner']}/{request.match_info['name']}", ""
    version = body.get("version")
    if not isinstance(version, str) or not version:
        raise VendorError("invalid", "version is required", param="version")
    return "sim/sim-large", version


def _input(body: dict[str, Any]) -> dict[str, Any]:
    found = body.get("input")
    if not isinstance(found, dict):
        raise VendorError("invalid", "input is required", param="input")
    if not isinstance(found.get("prompt"), str):
        raise VendorError("invalid", "prompt is required", param="input")
    for name in _NUMBERS:
        value = found.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise VendorError("invalid", f"{name} must be a number", param=f"input.{name}")
    return found


def _prompt(model: str, inputs: dict[str, Any]) -> Prompt:
    prompt = Prompt(model, message_count=1, last_user_text=inputs["prompt"])
    for name in ("system_prompt", "prompt"):
        if text := inputs.get(name):
            prompt.add(text, tokens.count(text))
    if inputs.get("image"):
        if model in MODELS and not MODELS[model].vision:
            raise VendorError("invalid", "image is not taken", param="input.image")
        prompt.add(inputs["image"], tokens.MEDIA_TOKENS)
    limit = inputs.get("max_tokens")
    prompt.max_tokens = int(limit) if limit is not None else None
    prompt.stop = [text for text in str(inputs.get("stop_sequences") or "").split(",") if text]
    return prompt


def _life(request: web.Request) -> float | None:
    text = request.headers.get("cancel-after", "")
    found = _LIFE.fullmatch(text)
    if not text or found is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return hours * 3600.0 + minutes * 60.0 + seconds
