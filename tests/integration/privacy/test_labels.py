"""Labels in a running router: where a call may go, and what raises it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import pytest
from aiohttp import web
from google.rpc import error_details_pb2

from tests.integration.privacy.vendor import Vendor, vendor
from tests.support.router import (
    ENVIRONMENT,
    PATIENCE,
    Router,
    ask,
    detail,
    openai_at,
    reason,
    router,
)
from trunkline import v1
from trunkline_server.catalogue.known import known
from trunkline_server.settings import parse

ANN, SSN = "ann@example.org", "536-22-1234"
LABELS = """
privacy:
  default_label: open
  labels:
    - {name: open, denied_providers: [far]}
    - {name: european, residency: [eu, ch], may_cache: false}
    - {name: own, mask: true, allowed_providers: [home], raised_by: [US_SSN]}
"""


def config(**urls: str) -> str:
    """One model on a host in each place; nothing is known of where the last one is."""
    residency = {"us": "[us]", "eu": "[eu]", "both": "[eu, us]", "home": "[ch]", "far": "[eu]"}
    lines = ["providers:"]
    # Labels name the latter two whether or not a model has a deployment there.
    nowhere = dict.fromkeys(("far", "home"), "http://127.0.0.1:9")
    for name, url in {**nowhere, **urls}.items():
        where = f", residency: {residency[name]}" if name in residency else ""
        lines.append(
            f"  {name}: {{kind: openai, base_url: '{url}/v1', api_key: 'env:TEST_KEY'{where}}}"
        )
    lines.append("deployments:")
    lines += [
        f"  - {{name: d-{name}, provider: {name}, model: gpt-test, priority: {place}, "
        "capabilities: [chat, streaming, embedding]}"
        for place, name in enumerate(urls)
    ]
    names = ", ".join(f"d-{name}" for name in urls)
    lines.append(f"models: {{large: {{deployments: [{names}], attempts: {{retries: 0}}}}}}")
    return "\n".join(lines) + LABELS


@asynccontextmanager
async def world(*places: str) -> AsyncGenerator[tuple[Router, dict[str, Vendor]]]:
    """A router, and a vendor in each of these places."""
    async with AsyncExitStack() as stack:
        vendors = {name: await stack.enter_async_context(vendor()) for name in places}
        urls = {name: each.url for name, each in vendors.items()}
        yield await stack.enter_async_context(router(config(**urls))), vendors


def labelled(label: str, text: str = "hello") -> v1.GenerateRequest:
    request = ask(text)
    if label:
        request.context.labels["data_classification"] = label
    return request


async def test_a_label_with_a_residency_goes_there_only() -> None:
    async with world("us", "both", "unknown", "far", "eu", "home") as (running, vendors):
        for _ in range(3):
            answer = await running.stub.Generate(labelled("european"), timeout=PATIENCE)
            assert answer.deployment == "d-eu"
        free = await running.stub.Generate(labelled(""), timeout=PATIENCE)
        assert free.deployment == "d-us"
        # The one in Europe fails: what is left is the one in Switzerland, and no other.
        vendors["eu"].status = 503
        for _ in range(3):
            answer = await running.stub.Generate(labelled("european"), timeout=PATIENCE)
            assert answer.deployment == "d-home"
        request = v1.EmbedRequest(model="large", inputs=["a"])
        request.context.labels["data_classification"] = "own"
        assert (await running.stub.Embed(request, timeout=PATIENCE)).deployment == "d-home"
        assert [len(vendors[name].bodies) for name in ("us", "both", "unknown", "far")] == [
            1,
            0,
            0,
            0,
        ]


async def test_where_nothing_is_left_the_rule_is_named() -> None:
    async with world("us", "both", "far") as (running, vendors):
        for label, rules in (
            ("european", "labels[european].residency, labels[open].denied_providers"),
            ("own", "labels[own].allowed_providers"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await running.stub.Generate(labelled(label), timeout=PATIENCE)
            assert reason(refused.value) == v1.ERROR_REASON_NO_ELIGIBLE_DEPLOYMENT
            info = detail(refused.value, error_details_pb2.ErrorInfo)
            assert info.metadata["rule"] == rules
            assert info.metadata["policy"] == "3"
            events = running.stub.StreamGenerate(labelled(label), timeout=PATIENCE)
            with pytest.raises(grpc.aio.AioRpcError) as streamed:
                await anext(aiter(events))
            assert rules in str(streamed.value.details())
        assert not any(each.bodies for each in vendors.values())


async def test_a_dry_run_honours_labels_and_names_the_rules() -> None:
    async with world("us", "unknown", "far", "eu") as (running, _):
        request = v1.RouteRequest(model="large")
        request.context.labels["data_classification"] = "european"
        told = await running.stub.Route(request, timeout=PATIENCE)
        assert told.decision.deployment == "d-eu"
        excluded = {
            row.deployment: (row.exclusion.reason, row.exclusion.detail)
            for row in told.candidates
            if row.HasField("exclusion")
        }
        policy = v1.EXCLUSION_REASON_POLICY
        assert excluded == {
            "d-us": (policy, "labels[european].residency"),
            "d-unknown": (policy, "labels[european].residency"),
            "d-far": (policy, "labels[open].denied_providers"),
        }
        batch = v1.BatchRouteRequest(requests=[request, v1.RouteRequest(model="large")])
        batch.requests[1].context.labels["data_classification"] = "none of them"
        told_together = await running.stub.BatchRoute(batch, timeout=PATIENCE)
        first, second = told_together.results
        assert first.response.decision.deployment == "d-eu"
        assert second.failure.reason == v1.ERROR_REASON_INVALID_REQUEST
        assert second.failure.field == "context.labels[data_classification]"


async def test_what_is_found_raises_the_label() -> None:
    async with world("us", "eu", "home") as (running, vendors):
        said = f"my SSN is {SSN}, mail {ANN}"
        answer = await running.stub.Generate(labelled("open", said), timeout=PATIENCE)
        assert answer.deployment == "d-home"
        assert answer.message.parts[0].text == f"You said: {said}"
        assert "my SSN is [US_SSN_1], mail [EMAIL_ADDRESS_1]" in vendors["home"].received
        # An address alone raises nothing.
        answer = await running.stub.Generate(labelled("open", f"mail {ANN}"), timeout=PATIENCE)
        assert answer.deployment == "d-us"
        assert ANN in vendors["us"].received
        running.worker._metrics.batches.flush()
        assert running.metric("trunkline_raised_labels_total", label="own") == 1
        assert running.metric("trunkline_masked_calls_total", label="own") == 1


@asynccontextmanager
async def analyzer() -> AsyncGenerator[tuple[str, dict[str, int], asyncio.Event]]:
    """Presidio's analyzer as its reference has it: finds Ann Smith. Its URL, what it answers,
    and an event without which it does not answer at all."""
    state, running = {"status": 200, "asked": 0}, asyncio.Event()
    running.set()

    async def analyze(request: web.Request) -> web.Response:
        text = (await request.json())["text"]
        state["asked"] += 1
        await running.wait()
        start = text.find("Ann Smith")
        found = [{"entity_type": "PERSON", "start": start, "end": start + 9, "score": 0.9}]
        return web.json_response(found if start >= 0 else [], status=state["status"])

    app = web.Application()
    app.router.add_post("/analyze", analyze)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", state, running
    running.set()
    await runner.cleanup()


def analysed(url: str, mode: str) -> str:
    """The usual labels, and names found by an analyzer."""
    return f"\nprivacy: {{presidio: {{url: '{url}', on_outage: {mode}, rest: 1h, timeout: 200ms}}}}"


async def test_names_that_the_analyzer_finds_are_masked() -> None:
    async with (
        vendor() as upstream,
        analyzer() as (url, state, _),
        router(openai_at(upstream.url) + analysed(url, "deny")) as running,
    ):
        request = labelled("confidential", f"Ann Smith, {ANN}")
        answer = await running.stub.Generate(request, timeout=PATIENCE)
        await running.stub.Generate(labelled("internal"), timeout=PATIENCE)
    assert answer.message.parts[0].text == f"You said: Ann Smith, {ANN}"
    assert "[PERSON_1], [EMAIL_ADDRESS_1]" in upstream.received
    assert state["asked"] == 1


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("mode", ["deny", "inline"])
async def test_an_analyzer_that_is_away_is_treated_as_configured(mode: str, silent: bool) -> None:
    async with (
        vendor() as upstream,
        analyzer() as (url, state, answering),
        router(openai_at(upstream.url) + analysed(url, mode)) as running,
    ):
        if silent:
            answering.clear()
        else:
            state["status"] = 500
        for _ in range(2):
            call = running.stub.Generate(
                labelled("confidential", f"Ann Smith, {ANN}"), timeout=PATIENCE
            )
            if mode == "inline":
                assert f"Ann Smith, {ANN}" in (await call).message.parts[0].text
                continue
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert reason(refused.value) == v1.ERROR_REASON_SERVICE_UNAVAILABLE
        assert running.metric("trunkline_analyzer_outage") == 1
        # Labels that mask nothing do not wait for it.
        await running.stub.Generate(labelled("internal"), timeout=PATIENCE)
    assert state["asked"] == 1
    assert ANN not in upstream.received
    assert ("Ann Smith, [EMAIL_ADDRESS_1]" in upstream.received) == (mode == "inline")


async def test_labels_are_taken_over_when_the_file_changes() -> None:
    async with vendor() as upstream, router(openai_at(upstream.url)) as running:

        def take_over(section: str) -> None:
            text = "server: {drain_timeout: 1s}\n" + openai_at(upstream.url) + section
            running.worker.reload(parse(text, "new.yaml", ENVIRONMENT, known()))

        request = labelled("confidential", f"I am {ANN}")
        await running.stub.Generate(request, timeout=PATIENCE)
        assert ANN in upstream.bodies[-1]
        take_over("\nprivacy: {}")
        await running.stub.Generate(request, timeout=PATIENCE)
        assert ANN not in upstream.bodies[-1]
        take_over("\nprivacy: {detect: [US_SSN]}")
        await running.stub.Generate(request, timeout=PATIENCE)
        assert ANN in upstream.bodies[-1]
        take_over("\nprivacy: {labels: [{name: mine}], default_label: mine}")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await running.stub.Generate(request, timeout=PATIENCE)
        assert reason(refused.value) == v1.ERROR_REASON_INVALID_REQUEST
        take_over("")
        await running.stub.Generate(request, timeout=PATIENCE)


async def test_an_analyzer_that_is_replaced_is_away_no_more() -> None:
    async with (
        vendor() as upstream,
        analyzer() as (url, state, _),
        router(openai_at(upstream.url) + analysed(url, "inline")) as running,
    ):
        state["status"] = 500
        for section, asked, away in (
            (analysed(url, "inline"), 1, 1),
            # The same one stays away as long as it rests.
            (analysed(url, "inline") + "\nlimits: {}", 1, 1),
            (analysed(url + "/other", "inline"), 1, 1),
            (analysed(url, "deny").replace("1h", "30m"), 2, 1),
            ("\nprivacy: {}", 2, 0),
        ):
            text = "server: {drain_timeout: 1s}\n" + openai_at(upstream.url) + section
            running.worker.reload(parse(text, "new.yaml", ENVIRONMENT, known()))
            call = running.stub.Generate(labelled("confidential"), timeout=PATIENCE)
            if "deny" in section:
                with pytest.raises(grpc.aio.AioRpcError):
                    await call
            else:
                await call
            assert (state["asked"], running.metric("trunkline_analyzer_outage")) == (asked, away)
