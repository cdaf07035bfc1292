"""From settings to the access rules that they describe."""

from dataclasses import fields

from trunkline_server.governance.access.access import Access, TenantRules
from trunkline_server.governance.access.bindings import Binding
from trunkline_server.governance.access.policies import Conditions, Effect, Policies, Policy
from trunkline_server.governance.access.roles import Grant, Role, Roles
from trunkline_server.governance.access.schedule import DAYS, Window
from trunkline_server.governance.access.tiers import Tier
from trunkline_server.governance.addresses import Callers, Networks
from trunkline_server.settings import (
    AccessPolicySettings,
    BindingSettings,
    ConditionsSettings,
    RoleSettings,
    Settings,
    TenantSettings,
    TierSettings,
    WindowSettings,
)


def build_access(settings: Settings) -> Access:
    """The access rules of a configuration that was checked."""
    wanted = settings.access
    return Access(
        roles=Roles(
            [_role(name, role) for name, role in settings.roles.items()],
            default=wanted.default_roles,
        ),
        tiers=[_tier(name, tier) for name, tier in settings.tiers.items()],
        default_tier=wanted.default_tier,
        tenants=[_tenant(name, tenant) for name, tenant in settings.tenants.items()],
        bindings=[_binding(name, binding) for name, binding in settings.bindings.items()],
        known_tenants_only=wanted.known_tenants_only,
        policies=Policies(
            [_policy(name, policy) for name, policy in settings.policies.items()],
            default=Effect(wanted.default),
        ),
    )


def build_callers(settings: Settings) -> Callers:
    """What finds the addresses that calls come from."""
    access = settings.access
    return Callers(access.trusted_proxies, trust_unix=access.trust_unix)


def networks_of(cidrs: tuple[str, ...]) -> Networks | None:
    """Networks as a file names them; None, which is anywhere, for none."""
    return Networks(cidrs) if cidrs else None


def _tenant(name: str, tenant: TenantSettings) -> TenantRules:
    return TenantRules(
        name=name,
        tier=tenant.tier,
        roles=frozenset(tenant.roles),
        networks=networks_of(tenant.networks),
        suspended=tenant.suspended,
    )


def _tier(name: str, tier: TierSettings) -> Tier:
    return Tier(
        name=name,
        models=tier.models,
        routes=tier.routes,
        features=frozenset(tier.features) if tier.features else None,
        max_output_tokens=tier.max_output_tokens,
        max_context_tokens=tier.max_context_tokens,
    )


def _role(name: str, role: RoleSettings) -> Role:
    return Role(
        name,
        tuple(
            Grant(
                permissions=grant.permissions,
                models=grant.models,
                routes=grant.routes,
                resources=grant.resources,
            )
            for grant in role.grants
        ),
    )


def _binding(name: str, binding: BindingSettings) -> Binding:
    callers = binding.callers
    return Binding(
        name=name,
        roles=frozenset(binding.roles),
        **{row.name: getattr(callers, row.name) or None for row in fields(callers)},
    )


def _policy(name: str, policy: AccessPolicySettings) -> Policy:
    return Policy(
        name=name,
        effect=Effect(policy.effect),
        when=_conditions(policy.when),
        unless=_conditions(policy.unless),
    )


# Conditions that are patterns, under the same names in the file.
_PATTERNS = tuple(
    row.name
    for row in fields(ConditionsSettings)
    if row.name not in {"labels", "windows", "networks"}
)


def _conditions(wanted: ConditionsSettings) -> Conditions:
    return Conditions(
        **{name: getattr(wanted, name) or None for name in _PATTERNS},
        labels=wanted.labels,
        windows=tuple(map(_window, wanted.windows)) or None,
        networks=networks_of(wanted.networks),
    )


def _window(wanted: WindowSettings) -> Window:
    # An empty list is every day, as in the contract.
    days = frozenset(wanted.days or DAYS)
    return Window(_minutes(wanted.start), _minutes(wanted.end), days, wanted.zone)


def _minutes(time: str) -> int:
    """Minutes after midnight of HH:MM."""
    hours, minutes = time.split(":")
    return int(hours) * 60 + int(minutes)
