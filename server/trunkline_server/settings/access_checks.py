"""What values of identity and access cannot show by themselves: that what they name is there."""

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from trunkline_server.settings.access import BUILT_IN_ROLES, CallersSettings
from trunkline_server.settings.identity import fields_in
from trunkline_server.settings.problems import suggestion

if TYPE_CHECKING:
    from trunkline_server.settings.schema import Settings

Complaint = tuple[str, str]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}\Z")
_NAME_WITH_SLASH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+/-]{0,127}\Z")


def check_access(settings: "Settings") -> Iterator[Complaint]:
    """What is wrong between identity, access and what they refer to, each with its path."""
    checks = _Checks(settings)
    yield from _names(settings)
    yield from checks.access()
    yield from checks.tenants()
    yield from checks.keys()
    yield from checks.bindings()
    yield from checks.issuers()
    yield from checks.certificates()
    yield from _policies(settings)
    if settings.audit is not None and settings.state.database is None:
        yield "audit", "needs state.database, where its entries are kept"


def _names(settings: "Settings") -> Iterator[Complaint]:
    sections: Mapping[str, Iterable[str]] = {
        "tenants": settings.tenants,
        "tiers": settings.tiers,
        "roles": settings.roles,
        "bindings": settings.bindings,
        "policies": settings.policies,
        "issuers": settings.issuers,
    }
    for section, names in sections.items():
        for name in names:
            if not _NAME.match(name):
                yield (
                    f"{section}.{name}",
                    "is no name: letters, digits and ._:@+- only, at most 128",
                )


def _policies(settings: "Settings") -> Iterator[Complaint]:
    for name, policy in settings.policies.items():
        if policy.effect == "allow" and settings.access.default == "allow":
            yield (
                f"policies.{name}.effect",
                "allows what is allowed already, while access.default is allow",
            )


class _Checks:
    """The checks that look names up."""

    def __init__(self, settings: "Settings") -> None:
        self._settings = settings
        self._roles = {*BUILT_IN_ROLES, *settings.roles}

    def access(self) -> Iterator[Complaint]:
        access = self._settings.access
        yield from self._known_roles("access.default_roles", access.default_roles)
        yield from self._known_tier("access.default_tier", access.default_tier)
        if access.known_tenants_only and not self._settings.tenants:
            yield "access.known_tenants_only", "refuses everybody while tenants names none"

    def tenants(self) -> Iterator[Complaint]:
        settings = self._settings
        for name, tenant in settings.tenants.items():
            yield from self._known_roles(f"tenants.{name}.roles", tenant.roles)
            yield from self._known_tier(f"tenants.{name}.tier", tenant.tier)
        for name, project in settings.projects.items():
            path = f"projects.{name}"
            owner, slash, rest = name.partition("/")
            if not slash or not rest or "/" in rest or not _NAME_WITH_SLASH.match(name):
                yield path, "is no name of a project; write TENANT/PROJECT"
                continue
            if owner not in settings.tenants:
                yield path, f"{owner!r} is not under tenants{suggestion(owner, settings.tenants)}"
            if project.tenant not in {"", owner}:
                yield f"{path}.tenant", f"is {project.tenant!r}; by its name it is {owner!r}"

    def keys(self) -> Iterator[Complaint]:
        secrets: dict[bytes, str] = {}
        for index, key in enumerate(self._settings.keys):
            path = f"keys[{index}]"
            yield from self._known_roles(f"{path}.roles", key.roles)
            yield from self._known_tier(f"{path}.tier", key.tier)
            yield from self._known_tenant(path, key.tenant, key.project)
            hashes = [(f"{path}.hash", key.hash)]
            hashes += [
                (f"{path}.retired[{place}].hash", old.hash) for place, old in enumerate(key.retired)
            ]
            for where, digest in hashes:
                if digest and secrets.setdefault(digest, where) != where:
                    yield where, f"is that of {secrets[digest].removesuffix('.hash')} too"

        for index, own in enumerate(self._settings.admin.keys):
            yield from self._known_roles(f"admin.keys[{index}].roles", own.roles)

    def bindings(self) -> Iterator[Complaint]:
        for name, binding in self._settings.bindings.items():
            yield from self._known_roles(f"bindings.{name}.roles", binding.roles)
            if binding.callers == CallersSettings():
                yield f"bindings.{name}.callers", "is empty, and so would mean everybody"

    def issuers(self) -> Iterator[Complaint]:
        seen: dict[str, str] = {}
        for name, issuer in self._settings.issuers.items():
            path = f"issuers.{name}"
            if issuer.issuer and seen.setdefault(issuer.issuer, name) != name:
                yield f"{path}.issuer", f"is that of issuers.{seen[issuer.issuer]} too"
            if issuer.refresh >= issuer.max_stale:
                yield f"{path}.refresh", f"must be below max_stale, {issuer.max_stale:g} s"
            if not issuer.algorithms:
                yield f"{path}.algorithms", "is empty, and so would accept no token"
            if "name" not in {*issuer.claims, *issuer.fixed}:
                yield f"{path}.claims", "lacks name; say which claim names the caller"
            yield from self._known_roles(f"{path}.roles", issuer.roles)
            for word, roles in (issuer.role_of or {}).items():
                yield from self._known_roles(f"{path}.role_of.{word}", roles)
            yield from self._fixed(path, issuer.fixed)

    def certificates(self) -> Iterator[Complaint]:
        settings = self._settings
        tls = settings.server.tls
        if settings.certificates and (tls is None or tls.client_ca is None):
            yield "certificates", "needs server.tls.client_ca, which says whose certificates"
        seen: dict[str, int] = {}
        for index, rule in enumerate(settings.certificates):
            path = f"certificates[{index}]"
            if rule.name and seen.setdefault(rule.name, index) != index:
                yield f"{path}.name", f"is that of certificates[{seen[rule.name]}] too"
            yield from self._known_roles(f"{path}.roles", rule.roles)
            yield from self._fixed(path, rule.fixed)
            for name in fields_in(rule.pattern):
                if name in rule.fixed:
                    yield f"{path}.fixed.{name}", "stands in the pattern too"

    def _fixed(self, path: str, fixed: Mapping[str, str]) -> Iterator[Complaint]:
        """A caller's fields that are given whoever it is."""
        yield from self._known_tier(f"{path}.fixed.tier", fixed.get("tier", ""))
        tenant = fixed.get("tenant", "")
        yield from self._known_tenant(f"{path}.fixed", tenant, fixed.get("project", ""))

    def _known_roles(self, path: str, roles: Iterable[str]) -> Iterator[Complaint]:
        for role in roles:
            if role:
                yield from _known(path, role, self._roles, "a role")

    def _known_tier(self, path: str, tier: str) -> Iterator[Complaint]:
        if tier:
            yield from _known(path, tier, self._settings.tiers, "a tier")

    def _known_tenant(self, path: str, tenant: str, project: str) -> Iterator[Complaint]:
        """Where no tenants are configured, names of tenants are words for the ledger alone; but
        not where the store has both them and the keys, whose last tenant is not to be removed."""
        tenants, projects = self._settings.tenants, self._settings.projects
        if tenant and (tenants or {"tenants", "keys"} <= set(self._settings.state.owns)):
            yield from _known(f"{path}.tenant", tenant, tenants, "a tenant")
        if project and tenant and projects:
            whole = f"{tenant}/{project}"
            if whole not in projects:
                own = [name.partition("/")[2] for name in projects if name.startswith(f"{tenant}/")]
                hint = suggestion(project, own)
                yield f"{path}.project", f"{whole!r} is not under projects{hint}"


def _known(path: str, name: str, names: Container[str], what: str) -> Iterator[Complaint]:
    if name not in names:
        hint = suggestion(name, names) if isinstance(names, Iterable) else ""
        yield path, f"{name!r} is not the name of {what}{hint}"
