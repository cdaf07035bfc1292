"""Plays one case against one client: tells its driver the steps and judges what comes back."""

import asyncio
import base64
import contextlib
import signal
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from tests.conformance.driver import PATIENCE, Answer, Driver, Pending
from tests.conformance.matching import differences
from tests.conformance.relay import Fault
from tests.conformance.world import World, filled
from trunkline import MessageAssembler, v1

Case = Mapping[str, Any]
Step = dict[str, Any]

API_KEY = "tk_conformance"
# The client that steps mean when they name none.
IT = "it"

# Method, request and response, by the contract's names.
_RESPONSES: Mapping[str, tuple[type[Message], type[Message]]] = {
    "Generate": (v1.GenerateRequest, v1.GenerateResponse),
    "StreamGenerate": (v1.GenerateRequest, v1.StreamGenerateResponse),
    "Embed": (v1.EmbedRequest, v1.EmbedResponse),
    "Route": (v1.RouteRequest, v1.RouteResponse),
    "BatchRoute": (v1.BatchRouteRequest, v1.BatchRouteResponse),
    "CountTokens": (v1.CountTokensRequest, v1.CountTokensResponse),
    "ListModels": (v1.ListModelsRequest, v1.ListModelsResponse),
    "ListProviderHealth": (v1.ListProviderHealthRequest, v1.ListProviderHealthResponse),
    "Rerank": (v1.RerankRequest, v1.RerankResponse),
}


class CaseError(Exception):
    """A client did not do as the case says."""


class Play:
    """One case in progress. `results` holds the answers by the id of their step."""

    def __init__(self, world: World, driver: Driver) -> None:
        self._world = world
        self._driver = driver
        self._calls: dict[str, tuple[int, Pending, str]] = {}
        self._clients: set[str] = set()
        self.results: dict[str, Answer] = {}

    async def run(self, case: Case) -> None:
        """Raises CaseError, or DriverError."""
        for what in case.get("start", ()):
            await self._world.start(what)
        try:
            if case.get("client", {}) is not None:
                await self._open({"open": IT, **case.get("client", {})})
            for number, step in enumerate(case["steps"], 1):
                try:
                    await self._step(dict(step))
                except (CaseError, TimeoutError) as error:
                    raise CaseError(f"step {number}: {error or 'nothing came'}") from error
        finally:
            for client in sorted(self._clients):
                await self._driver.ask("close", client=client)

    async def _step(self, step: Step) -> None:
        for name, action in (
            ("open", self._open),
            ("close", self._close),
            ("call", self._call),
            ("stream", self._stream),
            ("cancel", self._cancel),
            ("finish", self._finish),
            ("upstream", self._upstream),
            ("fault", self._fault),
            ("relay", self._relay),
            ("reach", self._reach),
            ("router", self._router),
        ):
            if name in step:
                await action(step)
                return
        raise ValueError(f"no such step: {step}")

    async def _open(self, step: Step) -> None:
        """`open: NAME` with the client's options, over a direct connection to the main router; or
        with `environment`, from those variables and nothing else."""
        name = step.pop("open")
        expect = step.pop("expect", None)
        if "environment" not in step:
            step = {"target": "${main}", "api_key": API_KEY, "timeout": 30, **step}
        options = filled(step, self._world.words)
        options = {key: value for key, value in options.items() if value is not None}
        answer = await self._driver.ask("open", client=name, options=options)
        if expect is not None:
            _judge(answer, expect)
        elif answer.get("ok") is not True:
            raise CaseError(f"the client did not open: {answer}")
        else:
            self._clients.add(name)

    async def _close(self, step: Step) -> None:
        self._clients.discard(step["close"])
        answer = await self._driver.ask("close", client=step["close"])
        if answer.get("ok") is not True:
            raise CaseError(f"the client did not close: {answer}")

    async def _call(self, step: Step) -> None:
        """`call: METHOD`. With `begin` it is left running; with `until_ok` it is made again and
        again while it fails with UNAVAILABLE; with `times` it is made so often."""
        method = step["call"]
        for _ in range(step.get("times", 1)):
            pending = self._tell("call", method, step)
            if step.get("begin"):
                return
            answer = await pending.done()
            while step.get("until_ok") and _code(answer) == "UNAVAILABLE":
                answer = await self._tell("call", method, step).done()
            self._conclude(step, method, answer, pending)

    async def _stream(self, step: Step) -> None:
        """`stream: StreamGenerate`. With `begin: N` it is left running once N events have come."""
        method = step["stream"]
        pending = self._tell("stream", method, step, read=step.get("read", "events"))
        if count := step.get("begin"):
            await pending.event(count)
            return
        self._conclude(step, method, await pending.done(), pending)

    def _tell(self, op: str, method: str, step: Step, **words: Any) -> Pending:
        request, _ = _RESPONSES[method]
        message = ParseDict(self._written(step.get("request", {})), request())
        number, pending = self._driver.tell(
            op,
            client=step.get("client", IT),
            method=method,
            request=base64.b64encode(message.SerializeToString()).decode(),
            timeout=step.get("timeout"),
            metadata=step.get("metadata", {}),
            trace=step.get("trace", ""),
            cancellable=bool(step.get("begin")),
            **words,
        )
        self._calls[step.get("id", "")] = (number, pending, method)
        return pending

    def _written(self, value: Any) -> Any:
        """The request with `$message: ID` replaced by the message of an earlier answer, `$call_id:
        ID` by the id of the tool call in it, `$repeat: [TEXT, COUNT]` by a long text, and
        `$copies: [VALUE, COUNT]` by a list."""
        if isinstance(value, dict):
            if "$message" in value:
                return self.results[value["$message"]]["response"]["message"]
            if "$call_id" in value:
                message = self.results[value["$call_id"]]["response"]["message"]
                return message["parts"][0]["tool_call"]["id"]
            if "$repeat" in value:
                text, count = value["$repeat"]
                return text * count
            if "$copies" in value:
                each, count = value["$copies"]
                return [each] * count
            return {key: self._written(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._written(each) for each in value]
        return value

    async def _cancel(self, step: Step) -> None:
        number, _, _ = self._calls[step["cancel"]]
        self._driver.tell("cancel", call=number)

    async def _finish(self, step: Step) -> None:
        """`finish: ID` waits for a call that was left running."""
        _, pending, method = self._calls[step["finish"]]
        self._conclude(step, method, await pending.done(), pending)

    async def _upstream(self, step: Step) -> None:
        """What the upstream has seen since the case began; `calls` and `gone` exactly."""
        wanted = step["upstream"]
        upstream = self._world.upstream
        calls, gone = wanted.get("calls"), wanted.get("gone")
        # What has not come by then is told by the comparison.
        with contextlib.suppress(TimeoutError):
            await upstream.reach(calls=calls or 0, gone=gone or 0)
        found = {"calls": len(upstream.headers), "gone": upstream.gone, "headers": upstream.headers}
        _raise(differences(found, wanted, "the upstream"))

    async def _fault(self, step: Step) -> None:
        words = dict(step["fault"])
        kinds = {
            "error_info": error_details_pb2.ErrorInfo,
            "retry_info": error_details_pb2.RetryInfo,
        }
        details = [
            ParseDict(row, kinds[kind]())
            for detail in words.pop("details", [])
            for kind, row in detail.items()
        ]
        self._world.relays["relay"].faults.append(Fault(**words, details=details))

    async def _relay(self, step: Step) -> None:
        """What a relay has seen since the case began: counts by method, and the `last` call."""
        wanted = step["relay"]
        relay = self._world.relays[step.get("at", "relay")]
        last = relay.seen[-1] if relay.seen else None
        found = {
            "calls": {name: relay.calls(name) for name in wanted.get("calls", ())},
            "last": {} if last is None else {**last.metadata, "remaining": last.remaining},
        }
        _raise(differences(found, wanted, "the relay"))

    async def _reach(self, step: Step) -> None:
        """`reach: [NAME, ...]` makes dry runs until each relay or router has had one, and lets
        the relays forget them: from then on the client is connected to all."""
        async with asyncio.timeout(PATIENCE):
            while not all([await self._reached(name) for name in step["reach"]]):
                await self._tell("call", "Route", {"request": {"model": "large"}}).done()
                # A router's metrics are a second old.
                await asyncio.sleep(0.02)
        for relay in self._world.relays.values():
            relay.seen.clear()

    async def _reached(self, name: str) -> bool:
        if relay := self._world.relays.get(name):
            return bool(relay.seen)
        _, metrics = await self._world.routers[name].get("/metrics")
        return 'trunkline_decisions_total{operation="route"}' in metrics

    async def _router(self, step: Step) -> None:
        name = step.get("at", "own")
        match step["router"]:
            case "kill":
                await self._world.stop(name, by=signal.SIGKILL)
            case "drain":
                await self._world.stop(name, by=signal.SIGTERM)
                await self._world.routers[name].logged("draining")
            case "restart":
                await self._world.restart(name)

    def _conclude(self, step: Step, method: str, answer: Answer, pending: Pending) -> None:
        readable = _readable(answer, method, pending.events)
        self.results[str(step.get("id", step.get("finish")))] = readable
        expect = step.get("expect")
        if expect == "anything":
            return
        _judge(readable, expect or {"error": {"$absent": True}})


def _readable(answer: Answer, method: str, events: list[bytes]) -> Answer:
    """The answer with its messages as JSON, and streams told by what they add up to."""
    if "failed" in answer:
        raise CaseError(f"the driver failed: {answer['failed']}")
    readable = dict(answer)
    _, response = _RESPONSES[method]
    if "response" in answer:
        readable["response"] = _json(response, answer["response"])
    if "message" in answer:
        readable["message"] = _json(v1.Message, answer["message"])
    if "error" in answer and answer["error"].get("report"):
        report = _json(v1.CallReport, answer["error"]["report"])
        readable["error"] = {**answer["error"], "report": report}
    if events:
        readable.update(_summary([v1.StreamGenerateResponse.FromString(each) for each in events]))
    return readable


def _summary(events: list[v1.StreamGenerateResponse]) -> Answer:
    assembler = MessageAssembler()
    for event in events:
        if event.HasField("delta"):
            assembler.add(event.delta)
    kinds = [str(event.WhichOneof("event")) for event in events]
    return {
        # A run of deltas counts once.
        "order": [kind for kind, _ in groupby(kinds)],
        "start": MessageToDict(events[0].start, preserving_proto_field_name=True),
        "end": MessageToDict(events[-1].end, preserving_proto_field_name=True),
        "assembled": MessageToDict(assembler.message(), preserving_proto_field_name=True),
        "deltas": kinds.count("delta"),
    }


def _json(kind: type[Message], encoded: str) -> Answer:
    message = kind.FromString(base64.b64decode(encoded))
    return MessageToDict(message, preserving_proto_field_name=True)


def _code(answer: Answer) -> str:
    return str(answer.get("error", {}).get("code", ""))


def _judge(answer: Answer, expect: Any) -> None:
    wrong = differences(answer, expect)
    if wrong and "error" in answer and "error" not in expect:
        wrong.append(f"its error is {answer['error']}")
    _raise(wrong)


def _raise(wrong: list[str]) -> None:
    if wrong:
        raise CaseError("; ".join(wrong))
