"""Access rules over a running router: each denial names its rule, and nobody else is denied."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
import structlog

from tests.support.callers import NOWHERE, denial, key, refusal, rule_against, shows, told
from tests.support.fault_server import FaultServer, read_request, response, send
from tests.support.router import PATIENCE, Router, ask, openai_at, reason, router
from trunkline import v1
from trunkline_server.catalogue.known import known
from trunkline_server.settings import Settings, parse

ANSWER = response(
    json.dumps(
        {
            "id": "c",
            "model": "gpt-test",
            "choices": [
                {"message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2},
        }
    ).encode(),
    "content-type: application/json",
)
# Answers as often as it is asked on a connection.
ANSWERING = [read_request, send(ANSWER)] * 50

TODAY = datetime.now(UTC)
FAR_DAY = (TODAY + timedelta(days=3)).strftime("%a").lower()

RULES = f"""
tenants:
  acme: {{tier: free}}
  umbrella: {{suspended: true}}
  fenced: {{networks: [203.0.113.0/24]}}
tiers:
  free: {{models: [large, small*], routes: [cheap], features: [streaming, tools],
         max_output_tokens: 100, max_context_tokens: 1000}}
  chat-only: {{features: []}}
roles:
  dry: {{grants: [{{permissions: [inference.route], models: [large]}}]}}
  operator: {{grants: [{{permissions: [admin.*]}}]}}
bindings:
  more: {{roles: [caller], callers: {{caller: [bound]}}}}
policies:
  no-night-owls: {{effect: deny, when: {{caller: [owl], windows: [{{}}]}}}}
  no-early-birds: {{effect: deny, when: {{caller: [bird], windows: [{{days: [{FAR_DAY}]}}]}}}}
  no-secrets: {{effect: deny, when: {{labels: {{class: ["secret*"]}}}}, unless: {{caller: [spy]}}}}
  no-guests: {{effect: deny, when: {{networks: [198.51.100.0/24]}}}}
  no-p1: {{effect: deny, when: {{tenant: [picky], provider: [p1]}}}}
  no-p0: {{effect: deny, when: {{caller: [pickier], provider: [p0]}}}}
access: {{trusted_proxies: [127.0.0.0/8]}}
keys:
{key("plain")}
{key("free", "tenant: acme")}
{key("gone", "tenant: umbrella")}
{key("fenced", "tenant: fenced")}
{key("home", "networks: [127.0.0.0/8, '::1']")}
{key("office", "networks: [192.0.2.0/24]")}
{key("scoped", "scopes: [inference.generate]")}
{key("dry", "roles: [dry]")}
{key("operator", "roles: [operator]")}
{key("bound", "roles: [operator]")}
{key("narrow", "models: [small], routes: [dear]")}
{key("owl")}
{key("bird")}
{key("spy")}
{key("pickier")}
"""
# Two models, each on both of two hosts, and two routes.
HOSTS = (
    openai_at(NOWHERE, NOWHERE)
    + "\nroutes: {cheap: {deployments: [d0, d1]}, dear: {deployments: [d0]}}"
)
CONFIG = HOSTS + RULES


def route(model: str = "large", **fields: Any) -> v1.RouteRequest:
    return v1.RouteRequest(model=model, **fields)


SECRET = v1.CallContext(labels={"class": "secret-1"})
DENIALS: list[tuple[str, v1.RouteRequest, str]] = [
    ("plain", route(), ""),
    ("gone", route(), "tenants[umbrella].suspended"),
    ("fenced", route(), "tenants[fenced].networks"),
    ("home", route(), ""),
    ("office", route(), "keys[office].networks"),
    ("scoped", route(), "keys[scoped].scopes"),
    ("dry", route(), ""),
    ("dry", route("route:cheap"), ""),
    ("dry", route("p0/other"), "roles[dry].models"),
    ("operator", route(), "roles[operator].permissions"),
    ("bound", route(), ""),
    ("narrow", route(), "keys[narrow].models"),
    ("narrow", route("route:cheap"), "keys[narrow].routes"),
    ("free", route(), ""),
    ("free", route("p0/other"), "tiers[free].models"),
    ("free", route("route:dear"), "tiers[free].routes"),
    (
        "free",
        route(requirements=v1.Requirements(capabilities=["vision"])),
        "tiers[free].features",
    ),
    ("free", route(requirements=v1.Requirements(capabilities=["tools"])), ""),
    ("free", route(routing=v1.RoutingOptions(hedge=True)), "tiers[free].features"),
    ("free", route(max_output_tokens=100), ""),
    ("free", route(max_output_tokens=101), "tiers[free].max_output_tokens"),
    ("free", route(input_tokens=950, max_output_tokens=50), ""),
    ("free", route(input_tokens=951, max_output_tokens=50), "tiers[free].max_context_tokens"),
    ("owl", route(), "policies[no-night-owls].deny"),
    ("bird", route(), ""),
    (
        "plain",
        route(context=v1.CallContext(labels={"class": "secret-1"})),
        "policies[no-secrets].deny",
    ),
    ("spy", route(context=SECRET), ""),
    ("plain", route(context=v1.CallContext(labels={"class": "open"})), ""),
]


async def test_each_denial_names_its_rule() -> None:
    async with router(CONFIG) as trunkline:
        found = [await rule_against(trunkline, request, who) for who, request, _ in DENIALS]
        shown = {
            who: trunkline.metric("trunkline_key_last_used_timestamp_seconds", key=who)
            for who in ("plain", "gone", "pickier")
        }
    # A key that opens nothing was shown all the same.
    assert min(shown["plain"], shown["gone"]) >= TODAY.timestamp()
    assert shown["pickier"] == 0
    assert found == [rule for _, _, rule in DENIALS]


async def test_every_method_asks_for_its_own_permission() -> None:
    calls: dict[str, Callable[[Router, Any], Awaitable[Any]]] = {
        "generate": lambda r, m: r.stub.Generate(ask(), metadata=m, timeout=PATIENCE),
        "stream_generate": lambda r, m: _first(
            r.stub.StreamGenerate(ask(), metadata=m, timeout=PATIENCE)
        ),
        "embed": lambda r, m: r.stub.Embed(
            v1.EmbedRequest(model="large", inputs=["x"]), metadata=m, timeout=PATIENCE
        ),
        "route": lambda r, m: r.stub.Route(route(), metadata=m, timeout=PATIENCE),
    }
    keys = "\n".join(key(name, f"scopes: [inference.{name}]") for name in [*calls, "batch_route"])
    async with router(f"{openai_at(NOWHERE)}\nkeys:\n{keys}") as trunkline:
        for method, call in calls.items():
            for name in calls:
                # Whoever may call finds nobody there.
                denied = await denial(call(trunkline, shows(name)))
                assert denied == ("" if method == name else f"keys[{name}].scopes"), method
        batch = v1.BatchRouteRequest(requests=[route(), route("nothing")])
        mine = await trunkline.stub.BatchRoute(batch, metadata=shows("batch_route"))
        theirs = await trunkline.stub.BatchRoute(batch, metadata=shows("route"))
    assert [each.WhichOneof("result") for each in mine.results] == ["response", "failure"]
    assert [each.failure.reason for each in theirs.results] == [v1.ERROR_REASON_AUTHORIZATION] * 2


async def _first(stream: Any) -> Any:
    async for event in stream:
        return event
    return None


async def test_rules_on_deployments_lead_calls_elsewhere() -> None:
    config = CONFIG.replace(key("bird"), key("bird", "tenant: picky")).replace(
        "tenants:\n", "tenants:\n  picky: {}\n"
    )
    async with router(config) as trunkline:
        chosen = await trunkline.stub.Route(route(), metadata=shows("pickier"))
        pinned = await refusal(trunkline.stub.Route(route("p0/x"), metadata=shows("pickier")))
        real = await refusal(
            trunkline.stub.Generate(ask(model="route:dear"), metadata=shows("pickier"))
        )
        other = await trunkline.stub.Route(route(), metadata=shows("bird"))
    assert [row.deployment for row in chosen.candidates] == ["d1", "d0"]
    assert chosen.candidates[1].exclusion.reason == v1.EXCLUSION_REASON_POLICY
    assert chosen.candidates[1].exclusion.detail == "policies[no-p0].deny"
    assert [row.deployment for row in other.candidates if not row.HasField("exclusion")] == ["d0"]
    for error in (pinned, real):
        assert reason(error) == v1.ERROR_REASON_NO_ELIGIBLE_DEPLOYMENT
        assert told(error) == {"policy": "1", "rule": "policies[no-p0].deny"}


async def test_addresses_are_the_peers_or_what_trusted_proxies_say() -> None:
    outside = ("x-forwarded-for", "198.51.100.7")
    office = ("x-forwarded-for", "203.0.113.1, 192.0.2.9")
    async with router(CONFIG) as trunkline:
        assert (
            await rule_against(trunkline, route(), "plain", outside) == "policies[no-guests].deny"
        )
        assert await rule_against(trunkline, route(), "office", office) == ""
        assert await rule_against(trunkline, route(), "office", outside) == "keys[office].networks"
        # Only the hop next to the proxy counts: what stands before it anybody may write.
        forged = ("x-forwarded-for", "192.0.2.9, 203.0.113.1")
        assert await rule_against(trunkline, route(), "office", forged) == "keys[office].networks"
    async with router(CONFIG.replace("access: {trusted_proxies: [127.0.0.0/8]}", "")) as trunkline:
        assert await rule_against(trunkline, route(), "plain", outside) == ""
        assert await rule_against(trunkline, route(), "office", office) == "keys[office].networks"


async def test_where_all_is_denied_a_policy_must_allow() -> None:
    config = (
        HOSTS
        + f"""
access: {{default: deny}}
policies: {{eu: {{effect: allow, when: {{caller: [ada], provider: [p1]}}}}}}
keys:
{key("ada")}
{key("bob")}
"""
    )
    async with router(config) as trunkline:
        assert await rule_against(trunkline, route(), "bob") == "access.default"
        answer = await trunkline.stub.Route(route(), metadata=shows("ada"))
    assert answer.decision.deployment == "d1"
    assert answer.candidates[1].exclusion.detail == "access.default"


async def test_tenants_that_nobody_knows_are_refused_where_wanted() -> None:
    """Keys cannot name one, but tokens can; here a key without a tenant is let in."""
    config = (
        HOSTS
        + f"""
access: {{known_tenants_only: true, default_tier: tiny, default_roles: []}}
tenants: {{acme: {{roles: [caller]}}}}
tiers: {{tiny: {{models: [small]}}}}
keys:
{key("mine", "tenant: acme")}
{key("loner")}
"""
    )
    async with router(config) as trunkline:
        assert await rule_against(trunkline, route(), "mine") == "tiers[tiny].models"
        assert await rule_against(trunkline, route(), "loner") == "roles[].permissions"


@pytest.mark.parametrize("cache", ["", "cache: {use: 'on', max_temperature: 2}"])
async def test_a_tier_bounds_what_is_written_unasked(cache: str) -> None:
    """Who does not say how much gets what its tier allows, and no more than the model writes or
    the tier's context leaves; also where the cache is asked first."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(FaultServer(ANSWERING))
        rules = f"""
{cache}
tiers:
  small: {{max_output_tokens: 50}}
  large: {{max_output_tokens: 5000}}
  tight: {{max_output_tokens: 50, max_context_tokens: 40}}
keys:
{key("small", "tier: small")}
{key("tight", "tier: tight")}
{key("large", "tier: large")}
{key("free")}
"""
        config = openai_at(server.url).replace(
            "model: gpt-test", "model: gpt-test, max_output_tokens: 900"
        )
        trunkline = await stack.enter_async_context(router(config + rules))
        asked = ask()
        asked.config.max_output_tokens = 20
        for who, request in (
            ("small", ask()),
            ("small", asked),
            ("large", ask()),
            ("free", ask()),
            ("tight", ask("x" * 4 * 30)),
        ):
            await trunkline.stub.Generate(request, metadata=shows(who), timeout=PATIENCE)
        full = await refusal(trunkline.stub.Generate(ask("x" * 4 * 40), metadata=shows("tight")))
        error = await refusal(
            trunkline.stub.Generate(
                v1.GenerateRequest(
                    model="large",
                    messages=ask().messages,
                    config=v1.GenerationConfig(max_output_tokens=51),
                ),
                metadata=shows("small"),
            )
        )
        bodies = [json.loads(each.body) for each in server.requests]
    assert [body.get("max_completion_tokens") for body in bodies] == [50, 20, 900, None, 10]
    assert told(full)["rule"] == "tiers[tight].max_context_tokens"
    assert told(error)["rule"] == "tiers[small].max_output_tokens"


async def test_refusals_of_rules_and_limits_are_the_callers_own_in_the_log() -> None:
    rules = f"""
limits: {{one: {{measure: requests, scope: key, amount: 1, per: day}}}}
budgets: {{tiny: {{scope: key, amount: "0.000001", match: {{key: [poor]}}}}}}
policies: {{nobody: {{effect: deny, when: {{caller: [shut], provider: ["*"]}}}}}}
tiers: {{small: {{max_output_tokens: 5}}}}
keys:
{key("eager")}
{key("poor")}
{key("shut")}
{key("small", "tier: small")}
"""
    async with router(openai_at(NOWHERE) + rules) as trunkline:
        with structlog.testing.capture_logs() as log:
            asked = ask()
            asked.config.max_output_tokens = 6
            for who, request in (
                ("eager", ask()),
                ("eager", ask()),
                ("poor", ask()),
                ("shut", ask()),
                ("small", asked),
            ):
                await refusal(
                    trunkline.stub.Generate(request, metadata=shows(who), timeout=PATIENCE)
                )
    lines = {
        (line["caller"], line["reason"].removeprefix("ERROR_REASON_")): line["log_level"]
        for line in log
        if line["event"] in {"call refused", "call failed"}
    }
    assert lines == {
        # The first of its calls found nobody there, which is no fault of its caller's.
        ("eager", "SERVICE_UNAVAILABLE"): "error",
        ("eager", "RATE_LIMIT"): "info",
        ("poor", "QUOTA_EXCEEDED"): "info",
        ("shut", "NO_ELIGIBLE_DEPLOYMENT"): "info",
        ("small", "AUTHORIZATION"): "info",
    }


def settings_of(config: str) -> Settings:
    return parse(config, "test.yaml", {"TEST_KEY": "sk-test"}, known())


async def test_a_reload_revokes_a_key_under_load_and_fails_nobody_else() -> None:
    """From the reload on no call of the revoked key is let in, and until then each was."""
    before = HOSTS + f"\nkeys:\n{key('stays')}\n{key('leaves')}\n"
    after = HOSTS + f"\nkeys:\n{key('stays')}\n"
    async with router(before) as trunkline:
        revoked = asyncio.Event()
        outcomes: dict[str, list[tuple[bool, grpc.StatusCode]]] = {"stays": [], "leaves": []}

        async def load(who: str) -> None:
            for _ in range(60):
                begun_after = revoked.is_set()
                call = trunkline.stub.Route(route(), metadata=shows(who), timeout=PATIENCE)
                outcomes[who].append((begun_after, await call.code()))
                if len(outcomes["stays"]) == 60:
                    trunkline.worker.reload(settings_of(after))
                    revoked.set()

        await asyncio.gather(*(load(who) for who in ("stays", "leaves") for _ in range(4)))
    assert {code for _, code in outcomes["stays"]} == {grpc.StatusCode.OK}
    assert {code for late, code in outcomes["leaves"] if late} == {grpc.StatusCode.UNAUTHENTICATED}
    early = [code for late, code in outcomes["leaves"] if not late]
    # Calls under way at that moment may have come to the router before it or after.
    assert early[:20] == [grpc.StatusCode.OK] * 20


async def test_a_reload_changes_every_rule_and_a_wrong_one_none() -> None:
    async with router(CONFIG) as trunkline:
        assert await rule_against(trunkline, route(), "gone") == "tenants[umbrella].suspended"
        trunkline.worker.reload(settings_of(CONFIG.replace("suspended: true", "suspended: false")))
        assert await rule_against(trunkline, route(), "gone") == ""
        opened = CONFIG.replace("  no-night-owls:", "  other-owls:")
        trunkline.worker.reload(settings_of(opened))
        assert await rule_against(trunkline, route(), "owl") == "policies[other-owls].deny"


async def test_one_tenants_suspension_is_no_other_tenants() -> None:
    async with router(CONFIG) as trunkline:
        names = ["gone", "free", "plain", "gone", "free", "spy"] * 5
        rules = await asyncio.gather(*(rule_against(trunkline, route(), who) for who in names))
    assert set(zip(names, rules, strict=True)) == {
        ("gone", "tenants[umbrella].suspended"),
        ("free", ""),
        ("plain", ""),
        ("spy", ""),
    }
