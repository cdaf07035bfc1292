"""Who may do what: tables of rules, and an oracle that judges deployment by deployment."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any

import pytest

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.access.access import Access, Permit, TenantRules
from trunkline_server.governance.access.policies import Conditions, Effect, Policies, Policy
from trunkline_server.governance.access.roles import Grant, Role, Roles
from trunkline_server.governance.access.schedule import Window
from trunkline_server.governance.access.tiers import Tier
from trunkline_server.governance.addresses import IpAddress, Networks
from trunkline_server.governance.identity.principal import Kind, Principal

# A Wednesday, 2026-01-07, at noon UTC.
NOON = 1_767_787_200.0
HOUR = 3600.0
GENERATE = "inference.generate"
ANY = "inference.*"


@dataclass
class Facts:
    """What a call knows of itself, counting who asks."""

    at: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def address(self) -> IpAddress | None:
        self.asked.append("address")
        return ip_address(self.at) if self.at else None

    def label(self, name: str) -> str:
        self.asked.append(name)
        return self.labels.get(name, "")


@dataclass(frozen=True)
class Row:
    """A deployment."""

    name: str
    provider: str
    model: str
    region: str = ""
    residency: frozenset[str] = frozenset()


EU = Row("eu-5", "azure", "gpt-5", "westeurope", frozenset({"eu"}))
US = Row("us-5", "openai", "gpt-5", "us-east", frozenset({"us"}))
CLAUDE = Row("claude-us", "anthropic", "claude-4", "us-east", frozenset({"us"}))
MINI = Row("eu-mini", "azure", "gpt-5-mini", "westeurope", frozenset({"eu", "uk"}))
ROWS = (EU, US, CLAUDE, MINI)


def someone(**rights: Any) -> Principal:
    return Principal(**{"kind": Kind.KEY, "name": "team", "source": "keys[team]", **rights})


def denied(
    access: Access,
    who: Principal,
    target: str = "gpt-5",
    permission: str = GENERATE,
    *,
    now: float = NOON,
    facts: Facts | None = None,
) -> str:
    """The rule that denies a call; empty if none does. Twice, the second time from memory."""
    first, second = (_denial(access, who, target, permission, (now, facts)) for _ in range(2))
    assert first == second
    return first


def _denial(
    access: Access, who: Principal, target: str, permission: str, at: tuple[float, Facts | None]
) -> str:
    now, facts = at
    try:
        access.decide(who, permission, target, now, facts or Facts())
    except TrunklineError as error:
        told = error
    else:
        return ""
    assert told.reason == v1.ERROR_REASON_AUTHORIZATION
    rule = told.metadata["rule"]
    assert rule in told.message
    return rule


def served(permit: Permit) -> list[str]:
    """The deployments that a permit leaves."""
    return [
        row.name for row in ROWS if permit.constraint is None or not permit.constraint.excludes(row)
    ]


def deny(when: Conditions, unless: Conditions | None = None, name: str = "rule") -> Policies:
    return Policies(
        [Policy(name=name, effect=Effect.DENY, when=when, unless=unless or Conditions())]
    )


def test_without_configuration_callers_may_call_and_nothing_else() -> None:
    access = Access()
    for target in ("gpt-5", "", "route:cheap", "openai/gpt-5"):
        assert denied(access, someone(), target) == ""
        assert access.decide(someone(), GENERATE, target, NOON, Facts()).constraint is None
    assert denied(access, someone(), "keys/team", "admin.keys.read") == "roles[caller].permissions"


ROLES = Roles(
    [
        Role("embedder", (Grant(permissions=("inference.embed",)),)),
        Role(
            "small", (Grant(permissions=("inference.*",), models=("*-mini",), routes=("cheap",)),)
        ),
        Role("claude", (Grant(permissions=(ANY,), models=("claude-*",), routes=()),)),
        Role("keeper", (Grant(permissions=("admin.providers.*",), resources=("providers/a*",)),)),
        Role("viewer", (Grant(permissions=("admin.keys.read",)),)),
    ]
)


@pytest.mark.parametrize(
    ("roles", "permission", "target", "rule"),
    [
        ("embedder", "inference.embed", "any", ""),
        ("embedder", "inference.generate", "any", "roles[embedder].permissions"),
        ("small", GENERATE, "gpt-5-mini", ""),
        ("small", GENERATE, "gpt-5", "roles[small].models"),
        ("small", GENERATE, "route:cheap", ""),
        ("small", GENERATE, "route:dear", "roles[small].routes"),
        ("small", GENERATE, "", ""),
        ("small claude", GENERATE, "claude-4", ""),
        ("small claude", GENERATE, "gpt-5", "roles[claude,small].models"),
        ("embedder small", "inference.embed", "gpt-5", ""),
        ("keeper", "admin.providers.write", "providers/azure", ""),
        ("keeper", "admin.providers.write", "providers/openai", "roles[keeper].resources"),
        ("keeper", "admin.keys.write", "keys/a", "roles[keeper].permissions"),
        ("keeper", GENERATE, "gpt-5", "roles[keeper].permissions"),
        # A configured role replaces the built-in one of its name.
        ("viewer", "admin.keys.read", "keys/a", ""),
        ("viewer", "admin.providers.read", "providers/a", "roles[viewer].permissions"),
        ("auditor", "admin.audit.verify", "audit", ""),
        ("admin", "admin.providers.write", "providers/openai", ""),
        ("admin", GENERATE, "gpt-5", ""),
        ("unheard-of", GENERATE, "gpt-5", "roles[unheard-of].permissions"),
    ],
)
def test_roles_grant(roles: str, permission: str, target: str, rule: str) -> None:
    who = someone(roles=frozenset(roles.split()))
    assert denied(Access(roles=ROLES), who, target, permission) == rule


def test_a_role_bounds_the_models_among_which_routing_chooses() -> None:
    access = Access(roles=ROLES)
    for target, roles, names in (
        ("", "small", ["eu-mini"]),
        ("route:cheap", "small", ["eu-mini"]),
        ("", "small claude", ["claude-us", "eu-mini"]),
        # Only `small` may use the route, but with the models of its own grant.
        ("route:cheap", "small claude", ["eu-mini"]),
        ("", "small admin", ["eu-5", "us-5", "claude-us", "eu-mini"]),
    ):
        who = someone(roles=frozenset(roles.split()))
        permit = access.decide(who, GENERATE, target, NOON, Facts())
        assert served(permit) == names, (target, roles)
    permit = access.decide(someone(roles=frozenset({"small"})), GENERATE, "", NOON, Facts())
    assert permit.constraint is not None
    assert permit.constraint.excludes(US) == "roles[small].models"


@pytest.mark.parametrize(
    ("scopes", "permission", "rule"),
    [
        (None, GENERATE, ""),
        (("inference.*",), GENERATE, ""),
        (("inference.embed",), GENERATE, "keys[team].scopes"),
        ((), GENERATE, "keys[team].scopes"),
        # A scope bounds roles and is none.
        (("admin.*",), "admin.keys.write", "roles[caller].permissions"),
    ],
)
def test_scopes_bound_whatever_roles_grant(
    scopes: tuple[str, ...] | None, permission: str, rule: str
) -> None:
    who = someone(scopes=None if scopes is None else frozenset(scopes))
    assert denied(Access(), who, "x", permission) == rule


def test_a_callers_own_patterns_hold() -> None:
    who = someone(models=("gpt-*",), routes=("cheap",), source="issuers[corp]", kind=Kind.TOKEN)
    assert denied(Access(), who, "claude-4") == "issuers[corp].models"
    assert denied(Access(), who, "route:dear") == "issuers[corp].routes"
    assert denied(Access(), who, "gpt-5") == ""
    # They are for models; what administers has resources.
    admin = replace(who, roles=frozenset({"admin"}))
    assert denied(Access(), admin, "providers/x", "admin.providers.read") == ""


FREE = Tier(
    name="free",
    models=("*-mini",),
    routes=("cheap",),
    features=frozenset({"streaming"}),
    max_output_tokens=100,
    max_context_tokens=1000,
)
GOLD = Tier(name="gold")


@pytest.mark.parametrize(
    ("tier", "tenant_tier", "target", "rule"),
    [
        ("free", "", "gpt-5-mini", ""),
        ("free", "", "gpt-5", "tiers[free].models"),
        ("free", "", "route:dear", "tiers[free].routes"),
        ("free", "gold", "gpt-5", "tiers[free].models"),
        ("gold", "free", "gpt-5", ""),
        ("", "gold", "gpt-5", ""),
        ("", "", "gpt-5", "tiers[free].models"),
        ("platinum", "", "gpt-5", "tiers[platinum]"),
    ],
)
def test_tiers_bound_models(tier: str, tenant_tier: str, target: str, rule: str) -> None:
    access = Access(
        tiers=[FREE, GOLD],
        default_tier="free",
        tenants=[TenantRules(name="acme", tier=tenant_tier)],
    )
    assert denied(access, someone(tier=tier, tenant="acme"), target) == rule


def test_a_tier_bounds_the_models_among_which_routing_chooses() -> None:
    access = Access(tiers=[FREE, GOLD])
    permit = access.decide(someone(tier="free"), GENERATE, "route:cheap", NOON, Facts())
    assert served(permit) == ["eu-mini"]
    assert permit.tier is FREE
    gold = access.decide(someone(tier="gold"), GENERATE, "", NOON, Facts())
    assert (gold.constraint, gold.tier, gold.tier_name) == (None, None, "gold")


@pytest.mark.parametrize(
    ("used", "input_tokens", "output_tokens", "rule"),
    [
        ((), 0, 0, ""),
        (("streaming",), 900, 100, ""),
        (("streaming", "vision"), 0, 0, "tiers[free].features"),
        (("tools", "streaming"), 0, 0, "tiers[free].features"),
        ((), 0, 101, "tiers[free].max_output_tokens"),
        ((), 901, 100, "tiers[free].max_context_tokens"),
        ((), 1001, 0, "tiers[free].max_context_tokens"),
        # What no tier knows is not withheld.
        (("telepathy",), 0, 0, ""),
    ],
)
def test_tiers_bound_requests(
    used: tuple[str, ...], input_tokens: int, output_tokens: int, rule: str
) -> None:
    if not rule:
        FREE.check(frozenset(used), input_tokens, output_tokens)
        return
    with pytest.raises(TrunklineError) as caught:
        FREE.check(frozenset(used), input_tokens, output_tokens)
    assert caught.value.reason == v1.ERROR_REASON_AUTHORIZATION
    assert caught.value.metadata["rule"] == rule


def test_features_that_the_router_adds_by_itself() -> None:
    assert FREE.permits("streaming")
    assert not FREE.permits("hedge")
    assert GOLD.permits("hedge")


def test_tenants_bound_everyone_of_theirs() -> None:
    access = Access(
        tenants=[
            TenantRules(name="gone", suspended=True),
            TenantRules(name="office", networks=Networks(("10.0.0.0/8",))),
            TenantRules(name="ops", roles=frozenset({"viewer"})),
        ],
        known_tenants_only=True,
    )
    assert denied(access, someone(tenant="gone")) == "tenants[gone].suspended"
    assert denied(access, someone(tenant="nobody")) == "tenants[nobody]"
    assert denied(access, someone()) == ""
    assert denied(access, someone(tenant="ops"), "x", "admin.keys.read") == ""
    # On top of what callers have who were given none.
    assert denied(access, someone(tenant="ops")) == ""
    assert denied(access, someone(tenant="office"), facts=Facts("10.9.9.9")) == ""
    assert denied(access, someone(tenant="office"), facts=Facts("11.0.0.1")) == (
        "tenants[office].networks"
    )


def test_addresses_are_checked_however_often_a_verdict_is_remembered() -> None:
    access = Access(tenants=[TenantRules(name="office", networks=Networks(("10.0.0.0/8",)))])
    who = someone(tenant="office", networks=Networks(("10.1.0.0/16", "2001:db8::/32")))
    for at, rule in (
        ("10.1.2.3", ""),
        ("10.2.0.1", "keys[team].networks"),
        ("2001:db8::1", "tenants[office].networks"),
        ("", "keys[team].networks"),
        ("10.1.2.3", ""),
    ):
        assert denied(access, who, facts=Facts(at)) == rule


NIGHT = Window(22 * 60, 6 * 60, frozenset({"mon", "tue", "wed", "thu", "fri"}))


ALL = Conditions()


@dataclass(frozen=True)
class Case:
    """A denying policy, a call at some hours after noon on a Wednesday, and the verdict."""

    when: Conditions
    denied: bool
    unless: Conditions = ALL
    caller: dict[str, Any] = field(default_factory=dict)
    target: str = "gpt-5"
    hours: float = 0.0
    facts: Facts = field(default_factory=Facts)


NIGHTLY = Conditions(windows=(NIGHT,))
SECRET = Conditions(labels={"classification": ("restricted", "secret")})
INSIDE = Conditions(networks=Networks(("10.0.0.0/8",)))
POLICY_CASES = [
    Case(ALL, True),
    Case(Conditions(tenant=("acme",)), True, caller={"tenant": "acme"}),
    Case(Conditions(tenant=("acme",)), False, caller={"tenant": "acme2"}),
    Case(Conditions(tenant=("a*", "b")), True, caller={"tenant": "b"}),
    Case(Conditions(role=("admin",)), False),
    Case(ALL, False, unless=Conditions(role=("caller",))),
    Case(Conditions(tier=("free",)), True, caller={"tier": "free"}, target="gpt-5-mini"),
    Case(Conditions(kind=("token",)), False),
    Case(Conditions(caller=("te?m",)), True),
    Case(Conditions(user=("ada",)), True, caller={"user": "ada"}),
    Case(Conditions(project=("p",)), False, caller={"project": "q"}),
    Case(Conditions(service=("s",)), True, caller={"service": "s"}),
    Case(Conditions(user=("ada",), service=("s",)), False, caller={"user": "ada"}),
    Case(Conditions(model=("gpt-5",)), True),
    Case(Conditions(model=("gpt-5",)), False, target="claude-4"),
    Case(Conditions(route=("dear",)), True, target="route:dear"),
    Case(Conditions(route=("dear",)), False, target="dear"),
    Case(Conditions(permission=("inference.embed",)), False),
    Case(NIGHTLY, False),
    Case(NIGHTLY, False, hours=9.99),
    Case(NIGHTLY, True, hours=10),
    Case(NIGHTLY, True, hours=17.99),
    Case(NIGHTLY, False, hours=18),
    # Friday's night reaches into Saturday; Saturday has none.
    Case(NIGHTLY, True, hours=48 + 15),
    Case(NIGHTLY, False, hours=72 + 11),
    Case(SECRET, True, facts=Facts(labels={"classification": "secret"})),
    Case(SECRET, False, facts=Facts(labels={"classification": "public"})),
    Case(SECRET, False),
    Case(ALL, False, unless=INSIDE, facts=Facts("10.0.0.1")),
    Case(ALL, True, unless=INSIDE, facts=Facts("192.0.2.1")),
    Case(ALL, True, unless=INSIDE),
]


@pytest.mark.parametrize("case", POLICY_CASES)
def test_denying_policies(case: Case) -> None:
    access = Access(tiers=[FREE, GOLD], policies=deny(case.when, case.unless))
    rule = denied(
        access,
        someone(**case.caller),
        case.target,
        now=NOON + case.hours * HOUR,
        facts=case.facts,
    )
    assert rule == ("policies[rule].deny" if case.denied else "")


def test_one_access_tells_moments_labels_and_addresses_apart() -> None:
    """The same caller and target, with what was remembered of the others at hand."""
    policies = Policies(
        [
            Policy(name="night", effect=Effect.DENY, when=Conditions(windows=(NIGHT,))),
            Policy(
                name="secret",
                effect=Effect.DENY,
                when=Conditions(labels={"classification": ("secret",)}),
            ),
            Policy(
                name="abroad",
                effect=Effect.DENY,
                when=Conditions(networks=Networks(("192.0.2.0/24",))),
            ),
        ]
    )
    access = Access(policies=policies)
    secret = {"classification": "secret"}
    for _ in range(2):
        for hours, facts, rule in (
            (0, Facts("10.0.0.1"), ""),
            (11, Facts("10.0.0.1"), "policies[night].deny"),
            (0, Facts("10.0.0.1", secret), "policies[secret].deny"),
            (0, Facts("192.0.2.5"), "policies[abroad].deny"),
            (0, Facts("192.0.3.5", {"classification": "public"}), ""),
        ):
            assert denied(access, someone(), now=NOON + hours * HOUR, facts=facts) == rule


def test_a_zone_has_its_own_nights() -> None:
    window = Window(22 * 60, 6 * 60, zone="America/New_York")
    # 02:30 UTC in winter is 21:30 there, in summer 22:30.
    winter = 1_767_753_000.0
    summer = 1_783_477_800.0
    assert not window.holds(winter)
    assert window.holds(summer)


@pytest.mark.parametrize(
    "wrong",
    [
        {"start": -1},
        {"start": 1440},
        {"end": 1441},
        {"days": frozenset()},
        {"days": frozenset({"x"})},
    ]
    + [{"zone": name} for name in ("Mars/Olympus", "", "../etc/passwd", "Europe")],
)
def test_windows_that_are_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"days|times of day|time zone"):
        Window(**wrong)


def test_rules_on_deployments_become_routing_constraints() -> None:
    restricted = Facts(labels={"classification": "restricted"})
    policies = deny(
        Conditions(labels={"classification": ("restricted",)}),
        Conditions(residency=("eu",)),
        "eu-only",
    )
    access = Access(policies=policies)
    assert access.decide(someone(), GENERATE, "gpt-5", NOON, Facts()).constraint is None
    permit = access.decide(someone(), GENERATE, "gpt-5", NOON, restricted)
    assert served(permit) == ["eu-5", "eu-mini"]
    assert permit.constraint is not None
    assert permit.constraint.excludes(US) == "policies[eu-only].deny"
    other = access.decide(someone(name="other"), GENERATE, "gpt-5", NOON, restricted)
    assert other.constraint == permit.constraint
    assert hash(other.constraint) == hash(permit.constraint)


def test_a_denied_model_is_denied_under_every_name() -> None:
    access = Access(policies=deny(Conditions(model=("gpt-5",))))
    assert denied(access, someone(), "gpt-5") == "policies[rule].deny"
    for target in ("", "route:any", "openai/gpt-5-2025"):
        permit = access.decide(someone(), GENERATE, target, NOON, Facts())
        assert served(permit) == ["claude-us", "eu-mini"]
    assert access.decide(someone(), GENERATE, "claude-4", NOON, Facts()).constraint is None


def test_by_default_denied_one_policy_must_allow_and_none_deny() -> None:
    policies = Policies(
        [
            Policy(name="acme", effect=Effect.ALLOW, when=Conditions(tenant=("acme",))),
            Policy(name="azure", effect=Effect.ALLOW, when=Conditions(provider=("azure",))),
            Policy(name="no-mini", effect=Effect.DENY, when=Conditions(model=("*-mini",))),
        ],
        Effect.DENY,
    )
    access = Access(policies=policies)
    acme, other = someone(tenant="acme"), someone()
    assert denied(access, acme, "gpt-5-mini") == "policies[no-mini].deny"
    assert served(access.decide(acme, GENERATE, "", NOON, Facts())) == ["eu-5", "us-5", "claude-us"]
    # Allowed whatever the deployment, nothing is left for routing to look at.
    assert access.decide(acme, GENERATE, "claude-4", NOON, Facts()).constraint is None
    permit = access.decide(other, GENERATE, "", NOON, Facts())
    assert served(permit) == ["eu-5"]
    assert permit.constraint is not None
    assert permit.constraint.excludes(CLAUDE) == "access.default"
    nothing = Access(policies=Policies([], Effect.DENY))
    assert denied(nothing, other) == "access.default"
    # Whoever administers is not locked out by it.
    admin = someone(roles=frozenset({"admin"}))
    assert denied(nothing, admin, "policies/x", "admin.policies.write") == ""


def test_policies_concern_administration_only_by_name() -> None:
    admin = someone(roles=frozenset({"admin"}))
    access = Access(policies=deny(Conditions(windows=(Window(),))))
    assert denied(access, admin, "keys/a", "admin.keys.write") == ""
    access = Access(policies=deny(Conditions(permission=("admin.*.write",))))
    assert denied(access, admin, "keys/a", "admin.keys.write") == "policies[rule].deny"
    assert denied(access, admin, "keys/a", "admin.keys.read") == ""


def test_configurations_that_mean_nothing_are_refused() -> None:
    allow = Policy(name="idle", effect=Effect.ALLOW)
    for make, problem in (
        (lambda: Policies([allow]), "allows what is allowed already"),
        (lambda: Roles(default=("nobody",)), "no role is called 'nobody'"),
        (lambda: Access(default_tier="x"), "no tier is called 'x'"),
        (lambda: Access(tenants=[TenantRules(name="a", tier="x")]), "no tier is called 'x'"),
        (lambda: Tier(name="x", features=frozenset({"speed"})), "'speed' is none of"),
        (lambda: Tier(name="x", max_output_tokens=-1), "must not be negative"),
    ):
        constructor: Callable[[], object] = make
        with pytest.raises(ValueError, match=problem):
            constructor()


LONG = "gpt-" + "5" * 500


def test_a_denial_says_who_what_and_which_rule() -> None:
    with pytest.raises(TrunklineError) as caught:
        Access(tiers=[FREE]).decide(
            someone(tier="free"), GENERATE, "gpt-" + "5" * 500, NOON, Facts()
        )
    assert caught.value.metadata == {
        "key": "team",
        "permission": GENERATE,
        "model": LONG[:128],
        "rule": "tiers[free].models",
    }


def test_facts_are_asked_for_only_where_rules_need_them() -> None:
    facts = Facts("10.0.0.1")
    Access(tiers=[FREE], roles=ROLES).decide(someone(), GENERATE, "gpt-5", NOON, facts)
    assert facts.asked == []


def test_what_is_remembered_is_bounded() -> None:
    access = Access()
    for number in range(40_000):
        access.decide(someone(), GENERATE, f"made-up-{number}", NOON, Facts())
    assert len(access._verdicts) <= 16_384
    before = len(access._verdicts)
    access.decide(someone(), GENERATE, "x" * 100_000, NOON, Facts())
    assert len(access._verdicts) == before
