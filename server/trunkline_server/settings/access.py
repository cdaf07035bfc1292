"""The configuration of who may do what: roles, bindings and policies."""

from dataclasses import dataclass, field
from typing import Annotated

from trunkline_server.settings import values as read
from trunkline_server.settings.networks import cidrs, time_of_day, time_to_start, time_zone
from trunkline_server.settings.problems import InvalidValueError
from trunkline_server.settings.records import list_of, record
from trunkline_server.settings.values import Context
from trunkline_server.settings.yaml_source import Node

# Roles that are there without being configured; governance.access.roles.BUILT_IN says what they
# permit.
BUILT_IN_ROLES = ("caller", "viewer", "auditor", "admin")

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

Patterns = tuple[str, ...]


def _names(node: Node, context: Context) -> tuple[str, ...]:
    """A list of texts, possibly empty."""
    return () if node.kind == "list" and not node.items else read.texts(node, context)


def _labels(node: Node, context: Context) -> dict[str, Patterns]:
    """A map of labels to shell patterns of their values."""
    if node.kind != "map":
        raise InvalidValueError("write a map of labels to patterns")
    return {name: read.texts(patterns, context) for name, patterns in node.entries.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantSettings:
    """`roles.NAME.grants[]`: permissions on some targets; all are shell patterns."""

    # Such as inference.generate, inference.* or admin.providers.write.
    permissions: Annotated[Patterns, read.texts]
    # Public model names, and names of routes; they bound inference.
    models: Annotated[Patterns, read.texts] = ("*",)
    routes: Annotated[Patterns, read.texts] = ("*",)
    # Resources, such as providers/openai; they bound the rest.
    resources: Annotated[Patterns, read.texts] = ("*",)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSettings:
    """`roles.NAME`: permissions under a name; whatever one of its grants permits."""

    grants: Annotated[tuple[GrantSettings, ...], list_of(record(GrantSettings))]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallersSettings:
    """`bindings.NAME.callers`: who is meant; shell patterns, all of which must fit."""

    caller: Annotated[Patterns, read.texts] = ()
    # key, token, certificate or anonymous.
    kind: Annotated[Patterns, read.texts] = ()
    tenant: Annotated[Patterns, read.texts] = ()
    project: Annotated[Patterns, read.texts] = ()
    user: Annotated[Patterns, read.texts] = ()
    service: Annotated[Patterns, read.texts] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingSettings:
    """`bindings.NAME`: gives roles to callers, beside those that they have."""

    roles: Annotated[tuple[str, ...], read.texts]
    callers: Annotated[CallersSettings, record(CallersSettings)]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSettings:
    """`windows[]`: a span of the day that comes back."""

    # HH:MM. An end at or before the start is on the next day.
    start: Annotated[str, time_to_start] = "00:00"
    end: Annotated[str, time_of_day] = "24:00"
    # The days on which it begins.
    days: Annotated[tuple[str, ...], read.choices(*DAYS)] = DAYS
    # Its IANA name.
    zone: Annotated[str, time_zone] = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionsSettings:
    """`when` and `unless` of a policy: what must hold, all of it; shell patterns, of which one
    must match. Empty asks nothing."""

    # Of the caller: its name, how it proves itself, who pays, whom it stands for.
    caller: Annotated[Patterns, read.texts] = ()
    kind: Annotated[Patterns, read.texts] = ()
    tenant: Annotated[Patterns, read.texts] = ()
    project: Annotated[Patterns, read.texts] = ()
    user: Annotated[Patterns, read.texts] = ()
    service: Annotated[Patterns, read.texts] = ()
    tier: Annotated[Patterns, read.texts] = ()
    role: Annotated[Patterns, read.texts] = ()
    # Of the call: the permission, what was asked for, its labels, when and from where.
    permission: Annotated[Patterns, read.texts] = ()
    model: Annotated[Patterns, read.texts] = ()
    route: Annotated[Patterns, read.texts] = ()
    labels: Annotated[dict[str, Patterns], _labels] = field(default_factory=dict)
    windows: Annotated[tuple[WindowSettings, ...], list_of(record(WindowSettings))] = ()
    networks: Annotated[tuple[str, ...], cidrs] = ()
    # Of the deployment that serves it.
    provider: Annotated[Patterns, read.texts] = ()
    deployment: Annotated[Patterns, read.texts] = ()
    region: Annotated[Patterns, read.texts] = ()
    residency: Annotated[Patterns, read.words] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessPolicySettings:
    """`policies.NAME`: allows or denies what fulfils `when` and not `unless`. Denials override.

    One whose `when` names no permission is for inference alone.
    """

    effect: Annotated[str, read.choice("allow", "deny")]
    when: Annotated[ConditionsSettings, record(ConditionsSettings)] = field(
        default_factory=ConditionsSettings
    )
    unless: Annotated[ConditionsSettings, record(ConditionsSettings)] = field(
        default_factory=ConditionsSettings
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSettings:
    """`access`: what holds where nothing more particular does."""

    # Whether inference that no policy denies is allowed, or needs a policy that allows it.
    default: Annotated[str, read.choice("allow", "deny")] = "allow"
    # The roles of callers whose key, token or certificate gives none.
    default_roles: Annotated[tuple[str, ...], _names] = ("caller",)
    # The tier of callers who have none, and whose tenant has none. Empty: no bounds.
    default_tier: Annotated[str, read.text] = ""
    # Whether callers whose tenant is not among `tenants` are refused.
    known_tenants_only: Annotated[bool, read.boolean] = False
    # Networks of proxies whose x-forwarded-for is believed, and whether that of whoever connects
    # by a unix socket is.
    trusted_proxies: Annotated[tuple[str, ...], cidrs] = ()
    trust_unix: Annotated[bool, read.boolean] = False
