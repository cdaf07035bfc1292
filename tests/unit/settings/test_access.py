"""Identity, access and audit as a file has them; what other rooms know is said alike."""

from pathlib import Path
from textwrap import dedent

from trunkline_server.governance.access.roles import BUILT_IN
from trunkline_server.governance.access.schedule import DAYS
from trunkline_server.governance.access.tiers import FEATURES
from trunkline_server.governance.identity.certificates import FIELDS
from trunkline_server.governance.identity.claims import LIST_FIELDS, TEXT_FIELDS
from trunkline_server.governance.identity.jwks import ALGORITHMS
from trunkline_server.settings import (
    AccessPolicySettings,
    BindingSettings,
    CallersSettings,
    ConditionsSettings,
    GrantSettings,
    ProjectSettings,
    TenantSettings,
    TierSettings,
    WindowSettings,
    access,
    identity,
    parse,
    tenants,
)

WHOLE = """
providers: {p: {dialect: openai, base_url: "http://127.0.0.1:1"}}
server:
  listen: "0.0.0.0:1"
  tls: {cert: c.pem, key: c.pem, client_ca: c.pem, require_client_cert: true}
state: {database: "sqlite:///state.db"}
tenants:
  acme: {display_name: Acme, tier: gold, roles: [viewer], networks: [10.0.0.0/8], suspended: true}
projects: {acme/search: {tenant: acme, display_name: Search}}
tiers: {gold: {models: ["gpt-*"], features: [streaming], max_output_tokens: 9}}
access: {default: deny, default_roles: [], default_tier: gold, trusted_proxies: 10.0.0.1}
roles: {ops: {grants: [{permissions: [admin.*], resources: "providers/*"}]}}
bindings: {night: {roles: [ops], callers: {kind: token, tenant: [acme]}}}
policies:
  eu:
    effect: allow
    when:
      residency: [EU]
      labels: {classification: [pii, "secret*"]}
      windows: [{start: 08:00, end: 18:30, days: [mon, tue], zone: Europe/Berlin}]
      networks: ["2001:db8::/32"]
    unless: {role: [ops]}
issuers:
  corp: {issuer: "https://login.example.com/", audiences: trunkline, role_of: {staff: ops}}
certificates:
  - {name: mesh, identity: uri, pattern: "spiffe://a/{project}/{name}", fixed: {tenant: acme}}
keys:
  - name: ci
    hash: sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    prefix: tk_0a0a0a0a
    retired:
      - {hash: "sha256:1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
         until: 2027-01-31T00:00:00Z, prefix: tk_0b0b0b0b}
    tenant: acme
    project: search
    user: ada
    service: web
    roles: [ops, caller]
    scopes: [inference.*]
    tier: gold
    networks: [192.0.2.7]
audit: {decisions: all, spool: spool, checkpoints: marks, on_full: drop, max_waiting: 5}
"""


def test_everything_that_a_file_may_say(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("pem")
    settings = parse(dedent(WHOLE), "t.yaml", {}, base=tmp_path)
    assert settings.tenants == {
        "acme": TenantSettings(
            display_name="Acme",
            tier="gold",
            roles=("viewer",),
            networks=("10.0.0.0/8",),
            suspended=True,
        )
    }
    assert settings.projects["acme/search"] == ProjectSettings(tenant="acme", display_name="Search")
    assert settings.tiers["gold"] == TierSettings(
        models=("gpt-*",), features=("streaming",), max_output_tokens=9
    )
    assert (settings.access.default, settings.access.default_roles) == ("deny", ())
    assert settings.access.trusted_proxies == ("10.0.0.1",)
    assert settings.roles["ops"].grants == (
        GrantSettings(permissions=("admin.*",), resources=("providers/*",)),
    )
    assert settings.bindings["night"] == BindingSettings(
        roles=("ops",), callers=CallersSettings(kind=("token",), tenant=("acme",))
    )
    assert settings.policies["eu"] == AccessPolicySettings(
        effect="allow",
        when=ConditionsSettings(
            residency=("eu",),
            labels={"classification": ("pii", "secret*")},
            windows=(
                WindowSettings(
                    start="08:00", end="18:30", days=("mon", "tue"), zone="Europe/Berlin"
                ),
            ),
            networks=("2001:db8::/32",),
        ),
        unless=ConditionsSettings(role=("ops",)),
    )
    issuer = settings.issuers["corp"]
    assert (issuer.issuer, issuer.audiences) == ("https://login.example.com/", ("trunkline",))
    assert issuer.role_of == {"staff": ("ops",)}
    assert settings.certificates[0].fixed == {"tenant": "acme"}
    (key,) = settings.keys
    assert (key.user, key.roles, key.scopes) == ("ada", ("ops", "caller"), ("inference.*",))
    assert key.retired[0].hash == bytes.fromhex("1123456789abcdef" + "0123456789abcdef" * 3)
    assert key.retired[0].until == 1_801_353_600.0
    assert settings.audit is not None
    assert settings.audit.spool == tmp_path / "spool"
    assert (settings.audit.decisions, settings.audit.on_full) == ("all", "drop")


def test_what_other_rooms_know_is_said_alike() -> None:
    assert set(access.BUILT_IN_ROLES) == {role.name for role in BUILT_IN}
    assert access.DAYS == DAYS
    assert set(tenants.FEATURES) == FEATURES
    assert identity.TEXT_FIELDS == TEXT_FIELDS == FIELDS
    assert identity.LIST_FIELDS == LIST_FIELDS
    assert set(identity.ALGORITHMS) == ALGORITHMS
