"""From settings, catalogue and prices to the table that calls are routed by."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import NamedTuple

from trunkline import v1
from trunkline_server.catalogue.clouds import cloud_identity
from trunkline_server.catalogue.extensions import dialects, provider_rows
from trunkline_server.catalogue.models import (
    CAPABILITIES,
    UNKNOWN_MODEL,
    ModelCatalogue,
    ModelEntry,
    model_catalogue,
)
from trunkline_server.catalogue.prices import PriceBook
from trunkline_server.catalogue.rows import ProviderRow
from trunkline_server.catalogue.unit_prices import price_of
from trunkline_server.catalogue.version import table_version
from trunkline_server.providers.codec import OPTIONAL_FACULTIES, faculties
from trunkline_server.routing.snapshot import (
    AttemptPolicy,
    BalanceWeights,
    Deployment,
    HedgePolicy,
    ProviderTemplate,
    Route,
    Snapshot,
)
from trunkline_server.settings import (
    AttemptSettings,
    BalanceSettings,
    CloudAuthSettings,
    DeploymentSettings,
    GatewaySettings,
    HedgeSettings,
    PolicySettings,
    ProbeSettings,
    ProviderSettings,
    Secret,
    Settings,
    deployment_name,
    place_of,
)

_USER_AGENT = "trunkline"

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How to reach one provider.

    `headers` are those of every request, credentials included but for those that are still to
    be fetched; they stay out of the repr. `secrets` are the values among them that nobody may
    see, and `render` makes the headers from these values, in their order. Timeouts are in
    seconds.
    """

    name: str
    dialect: str
    base_url: str
    headers: Headers = field(repr=False)
    secrets: tuple[Secret, ...]
    render: Callable[[Sequence[str]], Headers] = field(repr=False)
    flags: Mapping[str, str | int | bool]
    connect_timeout: float
    header_timeout: float
    max_body_bytes: int
    # Hosts that its answers may send the router to, beside its own.
    follow: tuple[str, ...]
    # The headers of a gateway before the vendor; None: there is none.
    gateway: GatewaySettings | None
    probe: ProbeSettings | None
    # What is fetched to try a credential, where no probe is configured.
    probe_path: str
    # The identity that requests are sent under, where a cloud knows it; its region is filled in.
    cloud: CloudAuthSettings | None = None


@dataclass(frozen=True, slots=True)
class _Hidden:
    """Where a secret goes in a header: its place among the endpoint's, and what stands before."""

    index: int
    prefix: str


class Manner(NamedTuple):
    """How a model is spoken to: in which dialect, unless its deployment says otherwise, and
    whether it may reason, which is false where the catalogue knows that it does not."""

    dialect: str
    reasons: bool


@dataclass(frozen=True, slots=True)
class CompiledTable:
    """The routing table and what goes with it.

    `health_names` are the names of the health rows, by slot. `flags_of` gives the switches of
    a codec for a provider and a vendor's model id: the endpoint's, and what the model needs
    besides; `manner_of` how that model is spoken to. `headers_of` are the headers of single
    deployments, by name. Equal tables have equal versions; credentials do not count in the
    version.
    """

    version: str
    snapshot: Snapshot
    endpoints: Mapping[str, Endpoint]
    health_names: tuple[str, ...]
    flags_of: Callable[[str, str], Mapping[str, str | int | bool]]
    headers_of: Mapping[str, Headers]
    manner_of: Callable[[str, str], Manner]


@dataclass(frozen=True, slots=True)
class _Provider:
    """A provider with every field resolved against its row."""

    name: str
    kind: str
    endpoint: Endpoint
    region: str
    residency: tuple[str, ...]
    price_provider: str
    # What its dialect has no way to ask for, whatever its models can do.
    lacks: frozenset[str]
    # What it speaks besides its endpoint's dialect.
    dialects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Facts:
    """What deployments are filled from; `public` gives each one's public model name."""

    book: PriceBook
    models: ModelCatalogue
    public: Mapping[str, str]


def compile_snapshot(
    settings: Settings, book: PriceBook, *, now: float, models: ModelCatalogue | None = None
) -> CompiledTable:
    """The table for some settings, at `now` in Unix seconds.

    The settings have been checked against `known.known`. `models` is the catalogue's own unless
    given.
    """
    models = models or model_catalogue()
    providers = {
        name: _provider(name, provider, settings) for name, provider in settings.providers.items()
    }
    public = _public_names(settings)
    facts = _Facts(book, models, public)
    deployments = [
        _deployment(slot, row, providers[row.provider], facts, settings.drained)
        for slot, row in enumerate(settings.deployments)
    ]
    by_name = {deployment.name: deployment for deployment in deployments}
    templates = {
        provider.name: _template(slot, provider, book, settings.drained)
        for slot, provider in enumerate(providers.values(), start=len(deployments))
    }
    routes = {
        name: _route(name, policy, policy.deployments, settings, by_name)
        for name, policy in settings.routes.items()
    }
    model_routes = {
        name: _route("", settings.models.get(name), members, settings, by_name)
        for name, members in _members(settings, public).items()
    }
    endpoints = {provider.name: provider.endpoint for provider in providers.values()}
    headers_of = {
        deployment_name(row): tuple(row.headers.items())
        for row in settings.deployments
        if row.headers
    }
    version = table_version(deployments, (model_routes, routes), templates, endpoints, headers_of)
    return CompiledTable(
        version=version,
        snapshot=Snapshot(version, deployments, model_routes, routes, templates, now),
        endpoints=endpoints,
        health_names=tuple(row.name for row in deployments)
        + tuple(f"{name}/*" for name in templates),
        flags_of=partial(_flags_of, providers, models),
        headers_of=headers_of,
        manner_of=partial(_manner_of, providers, models),
    )


def _provider(name: str, provider: ProviderSettings, settings: Settings) -> _Provider:
    kind = provider.kind or name
    row = provider_rows().get(kind)
    if row is None:
        row = ProviderRow(dialect=provider.dialect, base_url=provider.base_url)
    template: dict[str, str | _Hidden] = {
        "content-type": "application/json",
        "user-agent": _USER_AGENT,
        **row.headers,
    }
    secrets: list[Secret] = []
    auth = provider.auth or row.auth
    if provider.api_key is not None:
        template[auth.header] = _Hidden(len(secrets), auth.prefix)
        secrets.append(provider.api_key)
    for key, value in provider.headers.items():
        if isinstance(value, Secret):
            template[key] = _Hidden(len(secrets), "")
            secrets.append(value)
        else:
            template[key] = value
    render = partial(_render, tuple(template.items()))
    region = provider.region or row.region
    flags = {**row.flags, **provider.flags}
    base_url = provider.base_url or row.base_urls.get(region, row.base_url)
    for place, value in place_of(base_url, region, flags).items():
        base_url = base_url.replace(f"{{{place}}}", value)
    endpoint = Endpoint(
        name=name,
        dialect=provider.dialect or row.dialect,
        base_url=base_url,
        headers=render([None if each.managed else each.reveal() for each in secrets]),
        secrets=tuple(secrets),
        render=render,
        flags=flags,
        connect_timeout=provider.connect_timeout,
        header_timeout=provider.header_timeout,
        max_body_bytes=settings.server.max_response_bytes,
        follow=row.follow if provider.follow is None else provider.follow,
        gateway=row.gateway if provider.gateway is None else provider.gateway,
        probe=provider.probe,
        probe_path=row.probe_path,
        cloud=cloud_identity(name, provider),
    )
    residency = row.residency if provider.residency is None else provider.residency
    return _Provider(
        name=name,
        kind=kind,
        endpoint=endpoint,
        region=region,
        residency=residency,
        price_provider=provider.price_provider or row.price_provider,
        lacks=_lacks(endpoint.dialect),
        dialects=() if provider.dialect else row.dialects,
    )


def _render(
    template: tuple[tuple[str, str | _Hidden], ...], values: Sequence[str | None]
) -> Headers:
    """The headers of a template, without those whose value is None."""
    headers: list[tuple[str, str]] = []
    for name, text in template:
        if isinstance(text, str):
            headers.append((name, text))
        elif (value := values[text.index]) is not None:
            headers.append((name, text.prefix + value))
    return tuple(headers)


def _lacks(dialect: str) -> frozenset[str]:
    """The optional capabilities that a dialect has no way to ask for."""
    return OPTIONAL_FACULTIES - faculties(dialects()[dialect])


def _dialect(provider: _Provider, entry: ModelEntry | None) -> str:
    """The dialect in which a model is spoken to."""
    if entry is not None and entry.dialect in provider.dialects:
        return entry.dialect
    return provider.endpoint.dialect


def _deployment(
    slot: int,
    row: DeploymentSettings,
    provider: _Provider,
    facts: _Facts,
    drained: frozenset[str],
) -> Deployment:
    drains = {f"providers/{row.provider}", f"deployments/{deployment_name(row)}"}
    entry = facts.models.find(provider.kind, row.model)
    listed = facts.book.model(provider.price_provider, row.model)
    price = (
        price_of(row.price) if row.price else facts.book.find(provider.price_provider, row.model)
    )
    context = entry.context_tokens if entry else 0
    residency = provider.residency if row.residency is None else row.residency
    return Deployment(
        slot=slot,
        name=deployment_name(row),
        provider=provider.name,
        provider_model=row.model,
        model=facts.public[deployment_name(row)],
        region=row.region or provider.region,
        residency=frozenset(residency),
        capabilities=_capabilities(row, frozenset(entry.capabilities) if entry else None)
        - _lacks(row.dialect or _dialect(provider, entry)),
        context_tokens=row.context_tokens or context or (listed.context_tokens if listed else 0),
        max_output_tokens=row.max_output_tokens or (entry.max_output_tokens if entry else 0),
        price=price,
        quality=(entry.quality if entry else 0.0) if row.quality is None else row.quality,
        priority=row.priority,
        weight=row.weight,
        enabled=row.enabled and drained.isdisjoint(drains),
        dialect=row.dialect,
        drained=row.enabled and not drained.isdisjoint(drains),
    )


def _capabilities(row: DeploymentSettings, listed: frozenset[str] | None) -> frozenset[str]:
    change = row.capabilities
    if change is not None and change.replace is not None:
        return frozenset(change.replace)
    capabilities = listed or UNKNOWN_MODEL
    if change is not None:
        capabilities = capabilities.union(change.add).difference(change.remove)
    return capabilities


def _template(
    slot: int, provider: _Provider, book: PriceBook, drained: frozenset[str]
) -> ProviderTemplate:
    # The provider's part of the table is compiled now and not by the first call that asks.
    book.models(provider.price_provider)
    return ProviderTemplate(
        name=provider.name,
        slot=slot,
        region=provider.region,
        residency=frozenset(provider.residency),
        capabilities=CAPABILITIES - provider.lacks,
        price_of=partial(book.find, provider.price_provider),
        enabled=f"providers/{provider.name}" not in drained,
    )


def _public_names(settings: Settings) -> dict[str, str]:
    """The public model name of every deployment, by the deployment's name."""
    owner = {
        member: name for name, policy in settings.models.items() for member in policy.deployments
    }
    return {
        name: owner.get(name, row.model)
        for row in settings.deployments
        for name in (deployment_name(row),)
    }


def _members(settings: Settings, public: Mapping[str, str]) -> dict[str, list[str]]:
    """The deployments' names by public model: as listed, else in the order of the file."""
    members = {name: list(policy.deployments) for name, policy in settings.models.items()}
    for name, model in public.items():
        if model not in settings.models:
            members.setdefault(model, []).append(name)
    return members


def _route(
    name: str,
    policy: PolicySettings | None,
    members: Sequence[str],
    settings: Settings,
    by_name: Mapping[str, Deployment],
) -> Route:
    policy = policy or PolicySettings(deployments=())
    routing = settings.routing
    hedge = routing.hedge if policy.hedge is None else policy.hedge
    return Route(
        name=name,
        strategy=v1.Strategy.Value(f"STRATEGY_{(policy.strategy or routing.strategy).upper()}"),
        members=tuple(by_name[member] for member in members),
        max_targets=policy.max_targets or routing.max_targets,
        balance=_balance(policy.balance or routing.balance),
        attempts=_attempts(policy.attempts, routing.attempts, hedge),
    )


def _balance(balance: BalanceSettings) -> BalanceWeights:
    return BalanceWeights(balance.cost, balance.latency, balance.availability, balance.quality)


def _attempts(
    own: AttemptSettings, general: AttemptSettings, hedge: HedgeSettings
) -> AttemptPolicy:
    """The route's own settings over the general ones over the policy's defaults."""
    chosen = {
        row.name: value
        for settings in (general, own)
        for row in fields(settings)
        if (value := getattr(settings, row.name)) is not None
    }
    policy = HedgePolicy(hedge.percentile, hedge.min_delay) if hedge.percentile else None
    return AttemptPolicy(**chosen, hedge=policy)


def _flags_of(
    providers: Mapping[str, _Provider], models: ModelCatalogue, provider: str, model: str
) -> Mapping[str, str | int | bool]:
    row = providers[provider]
    entry = models.find(row.kind, model)
    if entry is None or not entry.flags:
        return row.endpoint.flags
    return {**entry.flags, **row.endpoint.flags}


def _manner_of(
    providers: Mapping[str, _Provider], models: ModelCatalogue, provider: str, model: str
) -> Manner:
    row = providers[provider]
    entry = models.find(row.kind, model)
    if entry is None:
        return Manner(row.endpoint.dialect, True)
    return Manner(_dialect(row, entry), not entry.capabilities or "reasoning" in entry.capabilities)
