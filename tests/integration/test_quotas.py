"""Limits and budgets of a running router: alone, and shared by replicas through Redis."""

import asyncio
import hashlib
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2

from tests.support.fault_proxy import FaultProxy
from tests.support.fault_server import FaultServer, hang, read_request
from tests.support.process import router_process
from tests.support.redis_server import RedisServer
from tests.support.router import PATIENCE, ask, channel_to, detail, reason
from trunkline import v1
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub
from trunkline_server.simulator.app import Simulator

KEY = "tk_of_the_team"
BEARER = (("authorization", f"Bearer {KEY}"),)
ENV = {"TEST_KEY": "sk-test"}


@pytest.fixture
async def simulator() -> AsyncGenerator[Simulator]:
    async with Simulator(port=0) as running:
        yield running


def config(folder: Path, upstream: str, *more: str) -> str:
    path = folder / "trunkline.yaml"
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    lines = [
        "providers:",
        f"  sim: {{kind: openai, base_url: '{upstream}/openai/v1', api_key: 'env:TEST_KEY'}}",
        "deployments:",
        "  - {name: d, provider: sim, model: sim-large, capabilities: [chat, streaming],",
        "     max_output_tokens: 500, price: {input: '2', output: '8'}}",
        f"keys: [{{name: team, hash: 'sha256:{digest}', tenant: acme, project: search}}]",
        *more,
    ]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def question(number: int) -> v1.GenerateRequest:
    request = ask(f"number {number}", model="sim-large")
    request.context.agent_id = "planner"
    return request


async def outcomes(
    addresses: list[str], calls: int
) -> tuple[list[v1.GenerateResponse], list[grpc.aio.AioRpcError]]:
    """Calls at the same time, in turn to each of the addresses: answers and failures."""
    channels = [channel_to(address) for address in addresses]
    stubs = [InferenceServiceStub(channel) for channel in channels]
    found = await asyncio.gather(
        *(
            stubs[number % len(stubs)].Generate(question(number), timeout=PATIENCE, metadata=BEARER)
            for number in range(calls)
        ),
        return_exceptions=True,
    )
    for channel in channels:
        await channel.close()
    failures = [each for each in found if isinstance(each, grpc.aio.AioRpcError)]
    answers = [each for each in found if isinstance(each, v1.GenerateResponse)]
    assert len(answers) + len(failures) == calls, found
    return answers, failures


async def test_a_limit_of_requests_names_itself_and_says_when(
    tmp_path: Path, simulator: Simulator
) -> None:
    limit = "limits: {slow: {measure: requests, scope: project, amount: 5, per: hour}}"
    async with router_process(
        "--config", config(tmp_path, simulator.url, limit), env=ENV
    ) as router:
        answers, failures = await outcomes([router.address], 8)
    assert len(answers) == 5
    for failure in failures:
        assert failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason(failure) == v1.ERROR_REASON_RATE_LIMIT
        assert detail(failure, error_details_pb2.ErrorInfo).metadata["limit"] == "slow"
        pause = detail(failure, error_details_pb2.RetryInfo).retry_delay.ToTimedelta()
        assert 0 < pause.total_seconds() <= 3600 / 5
        (told,) = detail(failure, error_details_pb2.QuotaFailure).violations
        assert told.subject == "project:search"


# Each call may cost 500 output tokens, 4 thousandths of a dollar, and a little input.
THREE_CALLS = "budgets: {team: {scope: tenant, amount: '0.0125', thresholds: [0.01]}}"


async def test_a_budget_gives_back_what_a_call_did_not_use(
    tmp_path: Path, simulator: Simulator
) -> None:
    path = config(tmp_path, simulator.url, THREE_CALLS)
    async with router_process("--config", path, env=ENV) as router:
        answers = []
        for _ in range(8):
            answered, refused = await outcomes([router.address], 1)
            assert refused == []
            answers += answered
        line = await router.logged("budget threshold passed")
    assert 125_000 < sum(answer.cost.total for answer in answers) <= 12_500_000
    assert (line["budget"], line["threshold"], line["amount_usd"]) == ("team", 0.01, 0.0125)


async def test_a_budget_holds_the_worst_case_of_calls_under_way(tmp_path: Path) -> None:
    async with FaultServer([read_request, hang]) as upstream:
        path = config(tmp_path, upstream.url, THREE_CALLS)
        async with router_process("--config", path, env=ENV) as router:
            waiting = asyncio.create_task(outcomes([router.address], 3))
            await upstream.until(lambda: len(upstream.requests) == 3)
            _, (failure,) = await outcomes([router.address], 1)
            waiting.cancel()
    assert reason(failure) == v1.ERROR_REASON_QUOTA_EXCEEDED
    (told,) = detail(failure, error_details_pb2.QuotaFailure).violations
    assert told.subject == "tenant:acme"


@pytest.mark.parametrize(
    ("patience", "code"),
    [("50ms", grpc.StatusCode.UNAVAILABLE), ("60s", grpc.StatusCode.DEADLINE_EXCEEDED)],
)
async def test_redis_has_the_configured_time_for_an_answer(
    tmp_path: Path,
    simulator: Simulator,
    redis_server: RedisServer,
    patience: str,
    code: grpc.StatusCode,
) -> None:
    async with FaultProxy("127.0.0.1", redis_server.port) as proxy:
        path = config(
            tmp_path,
            simulator.url,
            "limits: {all: {measure: requests, scope: tenant, amount: 100, per: hour}}",
            f"state: {{redis: 'redis://{proxy.address}', redis_timeout: {patience},",
            "  limits_on_outage: deny}",
        )
        async with router_process("--config", path, env=ENV) as router:
            answers, _ = await outcomes([router.address], 1)
            assert len(answers) == 1
            proxy.stall()
            async with channel_to(router.address) as channel:
                call = InferenceServiceStub(channel).Generate(
                    question(2), timeout=5.0, metadata=BEARER
                )
                assert await call.code() is code
            proxy.flow()


@pytest.fixture(params=["one", "cluster", "sentinel"])
def shared_redis(request: pytest.FixtureRequest) -> str:
    """The URL of a Redis of each kind, as operators write it."""
    if request.param == "one":
        url: str = request.getfixturevalue("redis_url")
        return url
    if request.param == "cluster":
        url = request.getfixturevalue("redis_cluster_url")
        return url.replace("redis://", "redis+cluster://")
    server: RedisServer = request.getfixturevalue("redis_server")
    server.ask("FLUSHALL")
    sentinel = request.getfixturevalue("new_sentinel")(server)
    return f"redis+sentinel://{sentinel.address}/primary"


async def test_replicas_share_an_exact_limit_and_budget_through_redis(
    tmp_path: Path, simulator: Simulator, shared_redis: str
) -> None:
    more = (
        "limits: {few: {measure: requests, scope: key, amount: 20, per: day}}",
        "budgets: {team: {scope: project, amount: '10'}}",
        # Not what each would decide by itself while a loaded machine keeps Redis waiting.
        "state: {redis: 'env:REDIS', limits_on_outage: deny, budgets_on_outage: deny}",
    )
    path = config(tmp_path, simulator.url, *more)
    env = {**ENV, "REDIS": shared_redis}
    async with (
        router_process("--config", path, env=env) as one,
        router_process("--config", path, env=env) as two,
        router_process("--config", path, "--workers", "2", env=env) as three,
    ):
        addresses = [one.address, two.address, three.address]
        answers, failures = await outcomes(addresses, 60)
    reasons = [reason(failure) for failure in failures]
    late = reasons.count(v1.ERROR_REASON_SERVICE_UNAVAILABLE)
    assert v1.ERROR_REASON_RATE_LIMIT in reasons
    assert reasons.count(v1.ERROR_REASON_RATE_LIMIT) + late == len(reasons)
    # What was admitted and not told in time counts too.
    assert 20 - late <= len(answers) <= 20


async def test_a_redis_that_is_away_is_told_and_calls_go_on(
    tmp_path: Path, simulator: Simulator
) -> None:
    more = (
        "limits: {few: {measure: requests, scope: key, amount: 20, per: day}}",
        "state: {redis: 'redis://127.0.0.1:1'}",
    )
    async with router_process(
        "--config", config(tmp_path, simulator.url, *more), env=ENV
    ) as router:
        answers, failures = await outcomes([router.address], 5)
        line = await router.logged("shared counters are away")
        _, metrics = await router.get("/metrics")
    assert (len(answers), failures) == (5, [])
    assert line["mode"] == "local"
    assert "trunkline_quota_outage 1.0" in metrics


async def test_limits_come_and_go_with_the_configuration(
    tmp_path: Path, simulator: Simulator
) -> None:
    path = config(tmp_path, simulator.url)
    limit = "limits: {none: {measure: concurrency, scope: tenant, amount: 1}}"
    async with router_process("--config", path, env=ENV) as router:
        free, _ = await outcomes([router.address], 10)
        config(tmp_path, simulator.url, limit)
        await router.logged("configuration reloaded")
        _, refused = await outcomes([router.address], 10)
        config(tmp_path, simulator.url)
        await router.logged("configuration reloaded", 2)
        again, _ = await outcomes([router.address], 10)
    assert (len(free), len(again)) == (10, 10)
    assert refused


def two_providers(folder: Path, upstream: str, *more: str) -> str:
    """A configuration with a second provider, which is tried after the first."""
    path = Path(config(folder, upstream, *more))
    text = path.read_text().replace(
        "deployments:\n",
        f"  other: {{kind: openai, base_url: '{upstream}/openai/v1', api_key: 'env:TEST_KEY'}}\n"
        "deployments:\n"
        "  - {name: e, provider: other, model: sim-large, capabilities: [chat, streaming],\n"
        "     priority: 9, max_output_tokens: 500, price: {input: '2', output: '8'}}\n",
    )
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("shared", [False, True])
async def test_a_provider_without_room_is_passed_over(
    tmp_path: Path, simulator: Simulator, redis_url: str, shared: bool
) -> None:
    more = (
        "limits:",
        "  vendor: {measure: requests, scope: provider, amount: 6, per: day,",
        "           match: {provider: [sim]}}",
        *(["state: {redis: 'env:REDIS'}"] if shared else []),
    )
    path = two_providers(tmp_path, simulator.url, *more)
    env = {**ENV, "REDIS": redis_url}
    async with router_process("--config", path, env=env) as router:
        answers, failures = await outcomes([router.address], 10)
    assert failures == []
    providers = [answer.provider for answer in answers]
    assert (providers.count("sim"), providers.count("other")) == (6, 4)
    assert all(len(answer.attempts) == 1 for answer in answers)


# Moves what is held under budgets back in time, by so many microseconds.
_LATER = """
for _, key in ipairs(redis.call('KEYS', 'trunkline:*:live')) do
  for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
    redis.call('ZINCRBY', key, -tonumber(ARGV[1]), member)
  end
end
return 1
"""


async def test_what_a_killed_router_held_is_free_after_its_calls_deadlines(
    tmp_path: Path, simulator: Simulator, redis_server: RedisServer, redis_url: str
) -> None:
    """Half a minute after, which the clock is set forward for."""
    more = (THREE_CALLS, "state: {redis: 'env:REDIS'}")
    env = {**ENV, "REDIS": redis_url}
    async with FaultServer([read_request, hang]) as upstream:
        path = config(tmp_path, upstream.url, *more)
        async with router_process("--config", path, env=env) as router:
            waiting = asyncio.create_task(outcomes([router.address], 3))
            await upstream.until(lambda: len(upstream.requests) == 3)
            router.send(signal.SIGKILL)
            await router.process.wait()
            await asyncio.gather(waiting, return_exceptions=True)
    path = config(tmp_path, simulator.url, *more)
    async with router_process("--config", path, env=env) as router:
        for seconds in (0, PATIENCE):
            redis_server.ask("EVAL", _LATER, "0", str(round(seconds * 1e6)))
            _, (failure,) = await outcomes([router.address], 1)
            assert reason(failure) == v1.ERROR_REASON_QUOTA_EXCEEDED
        redis_server.ask("EVAL", _LATER, "0", "31000000")
        answers, failures = await outcomes([router.address], 1)
    assert (len(answers), failures) == (1, [])


@pytest.mark.parametrize("scope", ["tenant", "provider", "service"])
async def test_a_budget_goes_on_after_a_kill(
    tmp_path: Path, simulator: Simulator, scope: str
) -> None:
    """By the ledger, in which all is that was answered; nothing else knows of it."""
    more = (
        f"budgets: {{team: {{scope: {scope}, amount: '0.0045'}}}}",
        f"state: {{database: 'sqlite:///{tmp_path}/usage.db'}}",
        f"ledger: {{journal: {tmp_path}/journal}}",
    )
    path = config(tmp_path, simulator.url, *more)
    spent = 0
    async with router_process("--config", path, env=ENV) as router:
        while True:
            answers, failures = await outcomes([router.address], 1)
            if failures:
                break
            spent += answers[0].cost.total
        router.send(signal.SIGKILL)
        await router.process.wait()
    assert reason(failures[0]) == v1.ERROR_REASON_QUOTA_EXCEEDED
    # What a call may cost is four thousandths of a dollar.
    assert 400_000 < spent <= 4_500_000
    async with router_process("--config", path, env=ENV) as router:
        _, (failure,) = await outcomes([router.address], 1)
    assert reason(failure) == v1.ERROR_REASON_QUOTA_EXCEEDED


async def test_the_last_provider_without_room_is_named(
    tmp_path: Path, simulator: Simulator
) -> None:
    rule = "limits: {vendor: {measure: requests, scope: provider, amount: 2, per: hour}}"
    async with router_process("--config", config(tmp_path, simulator.url, rule), env=ENV) as router:
        answers, failures = await outcomes([router.address], 5)
    assert len(answers) == 2
    for failure in failures:
        assert reason(failure) == v1.ERROR_REASON_RATE_LIMIT
        info = detail(failure, error_details_pb2.ErrorInfo).metadata
        assert (info["limit"], info["provider"]) == ("vendor", "sim")
        (told,) = detail(failure, error_details_pb2.QuotaFailure).violations
        assert told.subject == "provider:sim"
        pause = detail(failure, error_details_pb2.RetryInfo).retry_delay.ToTimedelta()
        assert 0 < pause.total_seconds() <= 1800


async def test_the_time_waited_is_told(tmp_path: Path, simulator: Simulator) -> None:
    rule = "limits: {one: {measure: requests, scope: tenant, amount: 1200, per: hour, burst: 1,"
    path = config(tmp_path, simulator.url, rule, "               max_wait: 30s}}")
    async with router_process("--config", path, env=ENV) as router:
        answers, failures = await outcomes([router.address], 2)
    assert failures == []
    first, second = sorted((answer.timing for answer in answers), key=lambda each: each.queue_us)
    assert first.queue_us == 0
    assert 0 < second.queue_us < second.total_us


def limited_vendor(folder: Path, upstream: str) -> Path:
    path = Path(two_providers(folder, upstream, "models: {sim-large: {deployments: [d, e]}}"))
    text = path.read_text()
    path.write_text(
        text.replace("provider: sim, model: sim-large,", "provider: sim, model: 'sim-large?rpm=1',")
    )
    return path


async def test_a_vendors_own_limit_is_learnt_and_kept(tmp_path: Path, simulator: Simulator) -> None:
    """The vendor admits one request a minute, and never has to refuse one."""
    path = limited_vendor(tmp_path, simulator.url)
    async with router_process("--config", str(path), env=ENV) as router:
        answers = []
        for _ in range(4):
            answered, failures = await outcomes([router.address], 1)
            assert failures == []
            answers += answered
        channel = channel_to(router.address)
        stub = InferenceServiceStub(channel)
        routed = await stub.Route(
            v1.RouteRequest(model="sim-large", routing=v1.RoutingOptions(explain=True)),
            metadata=BEARER,
        )
        await channel.close()
        async with asyncio.timeout(PATIENCE):
            while True:
                _, metrics = await router.get("/metrics")
                if "trunkline_provider_quota_left{" in metrics:
                    break
                await asyncio.sleep(0.2)
    assert [answer.provider for answer in answers] == ["sim"] + ["other"] * 3
    assert all(len(answer.attempts) == 1 for answer in answers)
    (excluded,) = [row for row in routed.candidates if row.deployment == "d"]
    assert excluded.exclusion.reason == v1.EXCLUSION_REASON_QUOTA
    assert excluded.exclusion.detail.startswith("its vendor said that its requests are used up")
    assert 'trunkline_provider_quota_left{deployment="d",kind="requests"} 0.0' in metrics
