"""Access decisions against an oracle that judges one deployment at a time.

The oracle goes by the words of the documentation, with the standard library's own patterns. It
knows nothing of residues, memos or constraints.
"""

import random
from fnmatch import fnmatchcase
from typing import Any

from tests.unit.governance.test_access import GENERATE, NOON, ROWS, Facts, Row, someone
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.access.access import Access
from trunkline_server.governance.access.policies import Conditions, Effect, Policies, Policy
from trunkline_server.governance.access.roles import Grant, Role, Roles
from trunkline_server.governance.access.schedule import DAYS, Window
from trunkline_server.governance.access.tiers import Tier

Condition = dict[str, Any]


def fits(patterns: tuple[str, ...], values: tuple[str, ...]) -> bool:
    return any(fnmatchcase(value, pattern) for value in values for pattern in patterns)


def fulfilled(condition: Condition, call: dict[str, Any], row: Row) -> bool:
    route = call["target"].removeprefix("route:") if call["target"].startswith("route:") else ""
    named = "" if call["target"].startswith("route:") else call["target"]
    values = {
        "tenant": (call["tenant"],),
        "role": tuple(call["roles"]),
        "tier": (call["tier"],),
        "route": (route,),
        "model": (row.model, named) if named else (row.model,),
        "provider": (row.provider,),
        "deployment": (row.name,),
        "region": (row.region,),
        "residency": tuple(row.residency),
    }
    for name, patterns in condition.items():
        if name == "labels":
            for label, wanted in patterns.items():
                if not fits(wanted, (call["labels"].get(label, ""),)):
                    return False
        elif name == "windows":
            if not any(in_window(window, call["now"]) for window in patterns):
                return False
        elif not fits(patterns, values[name]):
            return False
    return True


def in_window(window: Window, now: float) -> bool:
    """In UTC: by the spans that begin today and began yesterday."""
    midnight = now // 86_400 * 86_400
    for begins in (midnight, midnight - 86_400):
        # The epoch was a Thursday.
        day = DAYS[int(begins // 86_400 + 3) % 7]
        length = window.end - window.start
        length += 1440 if length <= 0 else 0
        start = begins + window.start * 60
        if day in window.days and start <= now < start + length * 60:
            return True
    return False


def oracle(rules: dict[str, Any], call: dict[str, Any], row: Row) -> bool:
    """Whether a deployment may serve a call."""
    target = call["target"]
    granted = False
    for models, routes in rules["grants"]:
        if target.startswith("route:"):
            granted |= fits(routes, (target[6:],)) and fits(models, (row.model,))
        else:
            granted |= fits(models, (target or row.model,))
    models, routes = rules["tiers"][call["tier"]]
    if target.startswith("route:"):
        paid = fits(routes, (target[6:],)) and fits(models, (row.model,))
    else:
        paid = fits(models, (target or row.model,))
    allowed = rules["default"] is Effect.ALLOW
    for effect, when, unless in rules["policies"]:
        applies = fulfilled(when, call, row) and not (unless and fulfilled(unless, call, row))
        if applies and effect is Effect.DENY:
            return False
        allowed |= applies
    return granted and paid and allowed


PATTERNS: dict[str, list[str]] = {
    "tenant": ["acme", "a*", "other", "*"],
    "role": ["r0", "r*", "none"],
    "tier": ["free", "gold", "?*"],
    "route": ["cheap", "*", "?*"],
    "model": ["gpt-*", "gpt-5", "*-mini", "claude-4", "*"],
    "provider": ["azure", "open*", "nobody"],
    "deployment": ["eu-*", "us-5"],
    "region": ["west*", "us-east"],
    "residency": ["eu", "u?"],
}


TARGETS = ["", "gpt-5", "gpt-5-mini", "claude-4", "route:cheap", "openai/gpt-5", "azure/x"]


def some_condition(rng: random.Random) -> Condition:
    names = rng.sample(sorted(PATTERNS), rng.choice([0, 1, 1, 2, 3]))
    condition: Condition = {
        name: tuple(rng.sample(PATTERNS[name], rng.randint(1, 2))) for name in names
    }
    if rng.random() < 0.2:
        condition["labels"] = {"classification": ("secret", "restricted")[: rng.randint(1, 2)]}
    if rng.random() < 0.2:
        start, end = rng.randrange(1440), rng.randrange(1441)
        condition["windows"] = (Window(start, end, frozenset(rng.sample(DAYS, 3))),)
    return condition


def some_rules(rng: random.Random) -> dict[str, Any]:
    default = rng.choice(list(Effect))
    effects = (
        [Effect.DENY] if default is Effect.ALLOW else [Effect.DENY, Effect.ALLOW, Effect.ALLOW]
    )

    def bounds() -> tuple[tuple[str, ...], tuple[str, ...]]:
        models = tuple(rng.sample(PATTERNS["model"], 2)) if rng.random() < 0.5 else ("*",)
        return models, rng.choice([("*",), ("cheap",), ()])

    return {
        "default": default,
        "grants": [bounds() for _ in range(rng.randint(1, 2))],
        "tiers": {"free": bounds(), "gold": bounds()},
        "policies": [
            (
                rng.choice(effects),
                some_condition(rng),
                some_condition(rng) if rng.random() < 0.4 else {},
            )
            for _ in range(rng.randint(0, 5))
        ],
    }


def built(rules: dict[str, Any]) -> Access:
    grants = tuple(
        Grant(permissions=(GENERATE,), models=models, routes=routes)
        for models, routes in rules["grants"]
    )
    policies = [
        Policy(
            name=f"p{number}", effect=effect, when=Conditions(**when), unless=Conditions(**unless)
        )
        for number, (effect, when, unless) in enumerate(rules["policies"])
    ]
    return Access(
        roles=Roles([Role("r0", grants)], default=("r0",)),
        tiers=[Tier(name=n, models=m, routes=r) for n, (m, r) in rules["tiers"].items()],
        policies=Policies(policies, rules["default"]),
    )


def candidates(target: str) -> list[Row]:
    """The deployments that routing would consider for a target."""
    if not target or target.startswith("route:"):
        return list(ROWS)
    if "/" in target:
        return [row for row in ROWS if row.provider == target.partition("/")[0]]
    return [row for row in ROWS if row.model == target]


def test_every_verdict_is_the_oracles() -> None:
    seen: set[tuple[bool, bool]] = set()
    for seed in range(400):
        rng = random.Random(seed)
        rules = some_rules(rng)
        access = built(rules)
        for _ in range(25):
            call: dict[str, Any] = {
                "tenant": rng.choice(["acme", "other", ""]),
                "roles": ["r0"],
                "tier": rng.choice(["free", "gold"]),
                "target": rng.choice(
                    [
                        "",
                        "gpt-5",
                        "gpt-5-mini",
                        "claude-4",
                        "route:cheap",
                        "openai/gpt-5",
                        "azure/x",
                    ]
                ),
                "labels": rng.choice([{}, {"classification": "secret"}]),
                "now": NOON + rng.randrange(7 * 24 * 60) * 60.0,
            }
            who = someone(tenant=call["tenant"], tier=call["tier"])
            facts = Facts(labels=call["labels"])
            try:
                permit = access.decide(who, GENERATE, call["target"], call["now"], facts)
            except TrunklineError:
                permit = None
            for row in candidates(call["target"]):
                expected = oracle(rules, call, row)
                excluded = permit and permit.constraint and permit.constraint.excludes(row)
                verdict = permit is not None and not excluded
                assert verdict is expected, (seed, rules, call, row)
                seen.add((permit is not None, expected))
    # All three ways to end were met often enough to mean something.
    assert seen == {(True, True), (True, False), (False, False)}
