"""The course of one call: read, limit, strike, answer, send."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from trunkline_server.simulator.counters import Counters, RequestLimit, Strikes
from trunkline_server.simulator.dialect import Call, Dialect, Endpoint, Quota
from trunkline_server.simulator.media import Upload
from trunkline_server.simulator.models import honest_name
from trunkline_server.simulator.prompt_cache import PromptCache
from trunkline_server.simulator.script import (
    EARLY_FAULTS,
    KEYS,
    MIDSTREAM_FAULTS,
    SCRIPT_HEADER,
    Script,
    ScriptError,
    resolve,
    split_model,
)
from trunkline_server.simulator.sending import fail_early, fail_midstream, send
from trunkline_server.simulator.vendor_error import VendorError, kind_of_status

_FORM = "multipart/form-data"


@dataclass(slots=True)
class State:
    """What all calls of one simulator share."""

    defaults: Script = field(default_factory=Script)
    clock: Callable[[], float] = time.monotonic
    counters: Counters = field(default_factory=Counters)
    strikes: Strikes = field(default_factory=Strikes)
    memory: PromptCache = field(default_factory=PromptCache)
    limit: RequestLimit = field(init=False)
    number: int = 0
    closing: bool = False
    connections: Callable[[], int] = lambda: 0

    def __post_init__(self) -> None:
        self.limit = RequestLimit(self.clock)

    def clear(self) -> None:
        self.counters.clear()
        self.strikes.clear()
        self.memory.clear()
        self.limit.clear()


class Course:
    """One call, from its request to the end of its answer."""

    __slots__ = ("_broken", "_dialect", "_model", "_number", "_quota", "_request", "_state")

    def __init__(self, state: State, dialect: Dialect, request: web.Request) -> None:
        self._state = state
        self._dialect = dialect
        self._request = request
        self._quota: Quota | None = None
        self._model = "unknown"
        self._broken = False
        state.number += 1
        self._number = state.number

    async def run(self, endpoint: Endpoint) -> web.StreamResponse:
        counters = self._state.counters
        counters.active += 1
        try:
            response = await self._answer(endpoint)
        except (asyncio.CancelledError, ConnectionError):
            if not self._state.closing:
                counters.gone(self._dialect.name, self._model)
            raise
        finally:
            counters.active -= 1
        if not self._broken:
            counters.statuses[response.status] += 1
        return response

    async def _answer(self, endpoint: Endpoint) -> web.StreamResponse:
        try:
            call, words = await self._read(endpoint)
            return await self._perform(call, words, endpoint)
        except VendorError as refusal:
            error = self._dialect.error(refusal, self._request)
            headers = {**self._headers(), **error.headers}
            return web.Response(
                status=error.status,
                body=error.body,
                content_type=error.content_type,
                headers=headers,
            )

    def _headers(self) -> dict[str, str]:
        return self._dialect.headers(self._number, self._quota)

    async def _read(self, endpoint: Endpoint) -> tuple[Call, str]:
        """The call, and the words by which its script is told from others."""
        request, dialect, state = self._request, self._dialect, self._state
        key = dialect.key(request)
        # A form is read as it comes.
        raw = b"" if request.content_type == _FORM else await request.read()
        if endpoint.verify is not None:
            endpoint.verify(request, raw)
        body = await _body_of(request, raw)
        model, operation = dialect.target(request, body)
        name, _ = split_model(model)
        self._model = honest_name(name)
        state.counters.called(dialect.name, self._model)
        query = _script_of(request.query) if request.rel_url.raw_query_string else ""
        header = request.headers.get(SCRIPT_HEADER, "")
        try:
            script = resolve(model, query, header, state.defaults)
        except ScriptError as error:
            raise VendorError("invalid", str(error), param="model") from None
        call = Call(
            dialect=dialect.name,
            operation=operation,
            name=name,
            script=script,
            body=body,
            query=request.query,
            headers=request.headers,
            key=key,
            number=self._number,
            created=int(time.time()),
            memory=state.memory,
        )
        return call, f"{dialect.name} {model} {query} {header}"

    async def _perform(self, call: Call, words: str, endpoint: Endpoint) -> web.StreamResponse:
        request, script, state = self._request, call.script, self._state
        if script.rpm:
            self._limit(call)
        if script.latency_ms:
            await asyncio.sleep(script.latency_ms / 1000)
        fault = ""
        if state.strikes.strikes(words, script):
            fault = script.fault
            state.counters.faults[fault or script.error or str(script.status)] += 1
            _refuse(script)
        # What the caller sees of a broken answer is not told by its status.
        self._broken = fault not in {"", "filter"}
        if fault in EARLY_FAULTS:
            return await fail_early(request, fault, _reply_type(call), self._headers())
        call.filtered = fault == "filter"
        reply = endpoint.run(call)
        if fault in MIDSTREAM_FAULTS:
            return await fail_midstream(request, reply, script, self._headers(), self._dialect)
        return await send(request, reply, script, self._headers())

    def _limit(self, call: Call) -> None:
        account = f"{call.dialect} {call.key}"
        allowed, self._quota = self._state.limit.take(account, call.script.rpm)
        if not allowed:
            raise VendorError("rate_limit", retry_after=self._quota.reset)


async def _body_of(request: web.Request, raw: bytes) -> dict[str, Any]:
    """The fields of a JSON object or of a form; of a form a file is an Upload, and what stands
    there more than once a list. Raises VendorError."""
    if request.content_type == _FORM:
        fields: dict[str, Any] = {}
        for name, value in (await request.post()).items():
            item = Upload.of(value) if isinstance(value, web.FileField) else value
            if name.endswith("[]") or name in fields:
                fields.setdefault(name.removesuffix("[]"), []).append(item)
            else:
                fields[name] = item
        return fields
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise VendorError("invalid", "The request body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise VendorError("invalid", "The request body is not a JSON object.")
    return body


def _refuse(script: Script) -> None:
    """Raises the failure that the script names, if it names one that is the vendor's own."""
    retry_after = None if script.retry_after < 0 else script.retry_after
    if script.error:
        raise VendorError(script.error, status=script.status, retry_after=retry_after)
    if script.status:
        kind = kind_of_status(script.status)
        raise VendorError(kind, status=script.status, retry_after=retry_after)


def _reply_type(call: Call) -> str:
    if call.operation == "converse-stream":
        return "application/vnd.amazon.eventstream"
    body = call.body
    streams = body.get("stream") is True or body.get("stream_format") == "sse"
    sse = streams or call.query.get("alt") == "sse"
    return "text/event-stream" if sse else "application/json"


def _script_of(query: Any) -> str:
    return ";".join(f"{key}={value}" for key, value in query.items() if key in KEYS)
