"""The kinds of resources that one engine serves: a kind is one row."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from trunkline.admin import v1 as admin

# A resource that somebody is put in possession of: its kind and name.
Given = tuple[str, str]

DRAINS = "drains"


def _nothing(_message: Any, _name: str) -> Iterable[Given]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind.

    `name` is the kind's in the store, the file and permissions. `plural` and `singular` are the
    words in the names of methods, such as Providers and Provider.

    `immutable` fields are set when a resource is created and never changed. Requests do not set
    `output_only` fields. `owned` says that a resource belongs to the tenant in its field
    `tenant`, and `nested` that its name then begins with the tenant's and a slash; only the
    names of kinds with `slashes` hold one.

    `gives` are the roles and tiers that a resource gives to somebody: whoever adds to those
    needs the permission to give them, and where `gives_anew`, whoever changes anything.
    `companions` are other kinds whose resource of the name KIND/NAME goes with it.
    """

    name: str
    plural: str
    singular: str
    message: type[Message]
    immutable: tuple[str, ...] = ()
    output_only: frozenset[str] = frozenset()
    owned: bool = False
    nested: bool = False
    slashes: bool = False
    gives: Callable[[Any, str], Iterable[Given]] = _nothing
    gives_anew: bool = False
    companions: tuple[str, ...] = ()

    @property
    def field(self) -> str:
        """The field of requests and responses that holds one."""
        return self.singular.lower()

    @property
    def list_field(self) -> str:
        """The field of responses that holds several."""
        return self.plural.lower()


def _of_key(key: admin.Key, _name: str) -> Iterable[Given]:
    yield from (("roles", role) for role in key.roles)
    if key.tier:
        yield "tiers", key.tier


def _of_tenant(tenant: admin.Tenant, _name: str) -> Iterable[Given]:
    yield from (("roles", role) for role in tenant.roles)
    if tenant.tier:
        yield "tiers", tenant.tier


def _of_binding(binding: admin.Binding, _name: str) -> Iterable[Given]:
    return (("roles", role) for role in binding.roles)


PROVIDERS = Kind(
    name="providers",
    plural="Providers",
    singular="Provider",
    message=admin.Provider,
    companions=(DRAINS,),
)
DEPLOYMENTS = Kind(
    name="deployments",
    plural="Deployments",
    singular="Deployment",
    message=admin.Deployment,
    immutable=("provider",),
    companions=(DRAINS,),
)
MODELS = Kind(name="models", plural="Models", singular="Model", message=admin.Model, slashes=True)
ROUTES = Kind(name="routes", plural="Routes", singular="Route", message=admin.Route)
KEYS = Kind(
    name="keys",
    plural="Keys",
    singular="Key",
    message=admin.Key,
    immutable=("tenant",),
    output_only=frozenset({"prefix", "retired"}),
    owned=True,
    gives=_of_key,
)
TENANTS = Kind(
    name="tenants", plural="Tenants", singular="Tenant", message=admin.Tenant, gives=_of_tenant
)
PROJECTS = Kind(
    name="projects",
    plural="Projects",
    singular="Project",
    message=admin.Project,
    immutable=("tenant",),
    owned=True,
    nested=True,
    slashes=True,
)
TIERS = Kind(name="tiers", plural="Tiers", singular="Tier", message=admin.Tier)
LIMITS = Kind(name="limits", plural="Limits", singular="Limit", message=admin.Limit)
BUDGETS = Kind(name="budgets", plural="Budgets", singular="Budget", message=admin.Budget)
ROLES = Kind(
    name="roles",
    plural="Roles",
    singular="Role",
    message=admin.Role,
    # Whoever changes what a role permits gives it, so changed, to all who have it.
    gives=lambda _role, name: (("roles", name),),
    gives_anew=True,
)
BINDINGS = Kind(
    name="bindings",
    plural="Bindings",
    singular="Binding",
    message=admin.Binding,
    gives=_of_binding,
)
POLICIES = Kind(name="policies", plural="Policies", singular="Policy", message=admin.Policy)

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        PROVIDERS,
        DEPLOYMENTS,
        MODELS,
        ROUTES,
        KEYS,
        TENANTS,
        PROJECTS,
        TIERS,
        LIMITS,
        BUDGETS,
        ROLES,
        BINDINGS,
        POLICIES,
    )
}
