"""What one value cannot show: references, uniqueness, and what the catalogue knows."""

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from decimal import Decimal
from ipaddress import ip_address

from trunkline_server.settings.access_checks import check_access
from trunkline_server.settings.cloud_checks import check_place, cloud_of
from trunkline_server.settings.known import Known
from trunkline_server.settings.privacy import privacy_complaints
from trunkline_server.settings.problems import Problem, suggestion
from trunkline_server.settings.providers import (
    DeploymentSettings,
    ProviderSettings,
)
from trunkline_server.settings.routing import PolicySettings
from trunkline_server.settings.schema import Settings
from trunkline_server.settings.secret_checks import check_secrets

# Names stand in model strings, metric labels and log lines.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}\Z")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+/-]{0,127}\Z")
_ROUTE_PREFIX = "route:"

# Budgets are counted in nanos by programs whose numbers are doubles.
_MOST_DOLLARS = 9_000_000
_LEAST_DOLLARS = Decimal("1e-9")


Complaint = tuple[str, str]


def check_settings(settings: Settings, known: Known, lines: Mapping[str, int]) -> Iterator[Problem]:
    """The problems between values. `lines` gives each path's line in the file; settings that
    come from no file have none. Partial settings are checked once they are whole."""
    complaints = _state(settings) if settings.partial else _all(settings, known, lines)
    for path, message in complaints:
        yield Problem(_line(path, lines), path, message)


def _all(settings: Settings, known: Known, lines: Mapping[str, int]) -> Iterable[Complaint]:
    return (
        *_server(settings),
        *_admin(settings),
        *_state(settings),
        *_providers(settings, known, lines),
        *_deployments(settings, known),
        *_policies(settings, "models", settings.models),
        *_policies(settings, "routes", settings.routes),
        *_models(settings),
        *_keys(settings),
        *_timings(settings),
        *_ledger(settings),
        *_quotas(settings),
        *check_access(settings),
        *privacy_complaints(settings.privacy, settings.providers),
        *check_secrets(settings),
        *_cache(settings),
    )


def _line(path: str, lines: Mapping[str, int]) -> int:
    """The line of a path, or of the nearest value around it that stands in the file."""
    while path and path not in lines:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return lines.get(path, 0)


def _server(settings: Settings) -> Iterator[Complaint]:
    server = settings.server
    tls = server.tls
    if tls is not None and tls.require_client_cert and tls.client_ca is None:
        yield "server.tls.require_client_cert", "needs client_ca, which says whose certificates"
    if tls is not None and tls.client_ca is not None and not tls.require_client_cert:
        # In gRPC's Python asking for certificates and demanding them are one switch.
        told = "has no effect without require_client_cert: true: gRPC asks for what it demands"
        yield "server.tls.client_ca", told
    known_callers = (
        settings.keys or settings.issuers or settings.certificates or "keys" in settings.state.owns
    )
    for name in ("listen", "openai_listen"):
        address = getattr(server, name)
        if not address or _is_loopback(address):
            continue
        if not known_callers and not server.allow_unauthenticated:
            yield (
                f"server.{name}",
                f"other machines reach {address} and no keys are configured; add keys, issuers "
                "or certificates, listen on 127.0.0.1, or set server.allow_unauthenticated: true",
            )
    if server.workers > 1 and server.openai_listen.endswith(":0"):
        yield "server.openai_listen", "needs a port, which the workers share"
    taken: dict[str, str] = {}
    for name in ("listen", "ops_listen", "openai_listen"):
        address = getattr(server, name)
        if address in taken:
            yield f"server.{name}", f"is the same address as server.{taken[address]}, {address}"
        if address and not address.endswith(":0"):
            taken[address] = name


def _admin(settings: Settings) -> Iterator[Complaint]:
    server, address = settings.server, settings.admin_address
    for name in ("listen", "ops_listen", "openai_listen"):
        if address and address == getattr(server, name) and not address.endswith(":0"):
            yield "server.admin_listen", f"is the same address as server.{name}, {address}"
    if server.admin_listen not in {"", "auto"} and settings.state.database is None:
        yield "server.admin_listen", "needs state.database, where the control plane keeps things"
    elif settings.admin.keys and settings.state.database is None:
        yield "admin.keys", "needs state.database, where the control plane keeps things"
    callers = {
        digest: index
        for index, key in enumerate(settings.keys)
        for digest in (key.hash, *(old.hash for old in key.retired))
    }
    for index, key in enumerate(settings.admin.keys):
        if key.hash in callers:
            yield f"admin.keys[{index}].hash", f"is that of keys[{callers[key.hash]}] too"
    for part in ("name", "hash"):
        for index, first in _repeats(getattr(key, part) for key in settings.admin.keys):
            yield f"admin.keys[{index}].{part}", f"is that of admin.keys[{first}] too"


def _state(settings: Settings) -> Iterator[Complaint]:
    state = settings.state
    if state.owns and state.database is None:
        yield "state.owns", "needs state.database, where those resources are"


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _providers(settings: Settings, known: Known, lines: Mapping[str, int]) -> Iterator[Complaint]:
    providers = settings.providers
    # What the store has none of has no line.
    if not providers and lines.get("providers"):
        yield "providers", "names no provider; name at least one, such as openai"
    for name, provider in providers.items():
        path = f"providers.{name}"
        if not _NAME.match(name):
            yield path, "is no name: letters, digits and ._:@+- only, at most 128"
        kind = known.kinds.get(provider.kind or name)
        # What is wrong has been reported, and is not missing besides.
        given = {
            key
            for key in ("api_key", "base_url", "dialect")
            if getattr(provider, key) or f"{path}.{key}" in lines
        }
        if kind is None:
            yield from _unknown_kind(path, name, provider, known, given)
        elif kind.env and not given & {"api_key", "base_url"} and not cloud_of(provider, kind):
            names = " or ".join(kind.env)
            yield path, f"has no api_key and {names} is not set; export it or write api_key"
        # What stands in no line comes from the store.
        references = settings.state.references if lines.get(path) == 0 else None
        yield from check_place(path, provider, kind, references)
        yield from _dialect(f"{path}.dialect", provider.dialect, known)
        table = known.price_providers
        if table is not None and provider.price_provider not in {"", *table}:
            hint = suggestion(provider.price_provider, table)
            unknown = f"is {provider.price_provider!r}, which is not in the price table{hint}"
            yield f"{path}.price_provider", unknown


def _dialect(path: str, dialect: str, known: Known) -> Iterator[Complaint]:
    if known.dialects is not None and dialect not in {"", *known.dialects}:
        hint = suggestion(dialect, known.dialects)
        dialects = ", ".join(sorted(known.dialects))
        yield path, f"is {dialect!r}, not one of {dialects}{hint}"


def _unknown_kind(
    path: str, name: str, provider: ProviderSettings, known: Known, given: Set[str]
) -> Iterator[Complaint]:
    if provider.kind:
        hint = suggestion(provider.kind, known.kinds) or f"; known are {', '.join(known.kinds)}"
        yield f"{path}.kind", f"is {provider.kind!r}, which is not in the catalogue{hint}"
    elif not given >= {"dialect", "base_url"}:
        hint = suggestion(name, known.kinds)
        yield (
            path,
            f"{name!r} is not in the catalogue{hint}; set kind, or dialect and base_url",
        )


def deployment_name(deployment: DeploymentSettings) -> str:
    """The name of a deployment: as configured, or made from provider and model."""
    return deployment.name or f"{deployment.provider}-{deployment.model.replace('/', '-')}"


def _deployments(settings: Settings, known: Known) -> Iterator[Complaint]:
    seen: dict[str, int] = {}
    for index, deployment in enumerate(settings.deployments):
        path = f"deployments[{index}]"
        name = deployment_name(deployment)
        if not (deployment.provider and deployment.model):
            continue
        if name in seen:
            advice = "" if deployment.name else "; give it a name of its own"
            yield (
                f"{path}.name" if deployment.name else path,
                f"is called {name!r}, as deployments[{seen[name]}] is{advice}",
            )
        seen.setdefault(name, index)
        if deployment.name and not _NAME.match(deployment.name):
            yield f"{path}.name", "is no name: letters, digits and ._:@+- only, at most 128"
        yield from _dialect(f"{path}.dialect", deployment.dialect, known)
        if deployment.provider and deployment.provider not in settings.providers:
            hint = suggestion(deployment.provider, settings.providers)
            yield f"{path}.provider", f"{deployment.provider!r} is not under providers{hint}"


def _policies(
    settings: Settings, section: str, policies: Mapping[str, PolicySettings]
) -> Iterator[Complaint]:
    names = {deployment_name(deployment) for deployment in settings.deployments}
    pattern, letters = (_MODEL_NAME, "._:@+/-") if section == "models" else (_NAME, "._:@+-")
    for name, policy in policies.items():
        path = f"{section}.{name}"
        if not pattern.match(name) or name.startswith(_ROUTE_PREFIX):
            yield path, f"is no name: letters, digits and {letters} only, at most 128"
        for index, member in enumerate(policy.deployments):
            if member and member not in names:
                hint = suggestion(member, names)
                yield (
                    f"{path}.deployments[{index}]",
                    f"{member!r} is not the name of a deployment{hint}",
                )


def _models(settings: Settings) -> Iterator[Complaint]:
    """Each deployment answers under one public name, and no name means two things."""
    owner: dict[str, str] = {}
    for name, policy in settings.models.items():
        for index, member in enumerate(policy.deployments):
            if member and owner.setdefault(member, name) != name:
                yield (
                    f"models.{name}.deployments[{index}]",
                    f"{member!r} is listed by models.{owner[member]} too; a deployment belongs to "
                    "one model, list it in a route to use it under a second name",
                )
    for index, deployment in enumerate(settings.deployments):
        name = deployment_name(deployment)
        if name not in owner and deployment.model in settings.models:
            yield (
                f"deployments[{index}]",
                f"no model lists {name!r}, so it would be public as {deployment.model!r}, which "
                "models defines without it; list it there or under another model",
            )


def _keys(settings: Settings) -> Iterator[Complaint]:
    for index, first in _repeats([key.name for key in settings.keys]):
        yield f"keys[{index}].name", f"is that of keys[{first}] too"


def _repeats(values: Iterable[object]) -> Iterator[tuple[int, int]]:
    """The place of every repeated value, with its first place; blanks do not count."""
    seen: dict[object, int] = {}
    for index, value in enumerate(values):
        if value and seen.setdefault(value, index) != index:
            yield index, seen[value]


def _timings(settings: Settings) -> Iterator[Complaint]:
    """Pairs of which the first may not exceed the second."""
    for path, attempts in (
        ("routing", settings.routing.attempts),
        *((f"models.{name}", policy.attempts) for name, policy in settings.models.items()),
        *((f"routes.{name}", policy.attempts) for name, policy in settings.routes.items()),
    ):
        base, most = attempts.backoff_base, attempts.backoff_max
        if base is not None and most is not None and base > most:
            yield f"{path}.attempts.backoff_base", f"is more than backoff_max, {most:g} s"
    breaker = settings.routing.breaker
    if breaker.default_cooldown > breaker.max_cooldown:
        yield (
            "routing.breaker.default_cooldown",
            f"is more than max_cooldown, {breaker.max_cooldown:g} s",
        )


def _ledger(settings: Settings) -> Iterator[Complaint]:
    if settings.ledger.journal is not None and settings.state.database is None:
        yield "ledger.journal", "needs state.database, where events go from there"


def _cache(settings: Settings) -> Iterator[Complaint]:
    cache = settings.cache
    if cache.shared and settings.state.redis is None:
        yield "cache.shared", "needs state.redis, which is what is shared"
    if cache.max_entry > cache.memory:
        yield "cache.max_entry", f"is more than cache.memory, {cache.memory} bytes"
    rules = [("cache", cache.ttl, cache.max_ttl)]
    for section, own_rules, names in (
        ("models", cache.models, {*settings.models, *(row.model for row in settings.deployments)}),
        ("routes", cache.routes, set(settings.routes)),
    ):
        for name, own in own_rules.items():
            path = f"cache.{section}.{name}"
            if name not in names:
                yield path, f"{name!r} is not among the {section}{suggestion(name, names)}"
            ttl = cache.ttl if own.ttl is None else own.ttl
            rules.append((path, ttl, cache.max_ttl if own.max_ttl is None else own.max_ttl))
    for path, ttl, most in rules:
        if ttl > most:
            yield f"{path}.ttl", f"is more than max_ttl, {most:g} s"


def _quotas(settings: Settings) -> Iterator[Complaint]:
    counted = [*(f"limits.{name}" for name in settings.limits)]
    counted += [f"budgets.{name}" for name in settings.budgets]
    if counted and settings.server.workers > 1 and settings.state.redis is None:
        yield counted[0], "would be counted by each worker alone; set state.redis, or workers: 1"
    for name, limit in settings.limits.items():
        path = f"limits.{name}"
        if limit.scope == "provider" and limit.max_wait:
            yield f"{path}.max_wait", "is not for providers: one without room is passed over"
        if limit.scope != "provider" and "provider" in limit.match:
            yield f"{path}.match.provider", "is known to limits of scope provider alone"
    for name, budget in settings.budgets.items():
        path = f"budgets.{name}"
        if budget.scope != "provider" and "provider" in budget.match:
            yield f"{path}.match.provider", "is known to budgets of scope provider alone"
        if budget.period == "rolling" and budget.window < 1:
            yield f"{path}.window", "is how far a rolling budget looks back; write such as 30d"
        if budget.period != "rolling" and budget.window:
            yield f"{path}.window", "is for rolling budgets"
        if not _LEAST_DOLLARS <= budget.amount <= _MOST_DOLLARS:
            yield f"{path}.amount", f"must be above 0 and at most {_MOST_DOLLARS:,} dollars"
