"""The report of `trunkline check`: what a configuration amounts to, or what is wrong."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from trunkline_server.catalogue.compile import CompiledTable, compile_snapshot
from trunkline_server.catalogue.extensions import dialects
from trunkline_server.catalogue.known import known
from trunkline_server.catalogue.models import model_catalogue
from trunkline_server.catalogue.prices import PriceBook
from trunkline_server.providers.dialects import DIALECTS
from trunkline_server.routing.pricing import Price
from trunkline_server.routing.snapshot import Deployment
from trunkline_server.settings import STORED_KINDS, Settings, load, resource_names


def check(
    path: str | Path, env: Mapping[str, str] | None = None, *, now: float | None = None
) -> str:
    """A summary of the configuration as it holds at `now`, in Unix seconds.

    `env` and `now` are the process's environment and the present unless given. Raises
    ConfigError, whose text is the report, when the configuration cannot be used.
    """
    now = time.time() if now is None else now
    settings = load(path, env, known())
    if settings.partial:
        return "\n".join(_partial_report(str(path), settings))
    table = compile_snapshot(settings, PriceBook(), now=now)
    return "\n".join(_report(str(path), settings, table, now))


def _partial_report(name: str, settings: Settings) -> Iterator[str]:
    yield f"{name}: OK as far as it goes; with what the store owns it is checked at each start"
    yield f"in the store: {', '.join(settings.state.owns)}"
    for kind in STORED_KINDS:
        if kind not in settings.state.owns:
            names = resource_names(settings)[kind]
            yield f"{kind}: {', '.join(names) or 'none'}"


def _report(name: str, settings: Settings, table: CompiledTable, now: float) -> Iterator[str]:
    snapshot = table.snapshot
    yield f"{name}: OK, version {table.version}"
    yield f"providers: {len(table.endpoints)}"
    for endpoint in table.endpoints.values():
        yield f"  {endpoint.name}: {endpoint.dialect} at {endpoint.base_url}"
    own = sorted(dialects().keys() - DIALECTS.keys())
    if own:
        yield f"dialects of installed packages: {', '.join(own)}"
    yield f"deployments: {len(snapshot.deployments)}"
    for deployment in snapshot.deployments:
        yield f"  {_deployment(deployment, settings, now)}"
    yield f"models: {', '.join(snapshot.models) or 'none'}"
    yield f"routes: {', '.join(snapshot.routes) or 'none'}"
    names = ", ".join(key.name for key in settings.keys)
    others = bool(settings.issuers or settings.certificates)
    yield f"keys: {names or ('none' if others else 'none; callers need no key')}"
    for what, found in (
        ("issuers", settings.issuers),
        ("certificates", [rule.name for rule in settings.certificates]),
        ("tenants", settings.tenants),
        ("tiers", settings.tiers),
        ("roles", settings.roles),
        ("policies", settings.policies),
    ):
        if found:
            yield f"{what}: {', '.join(found)}"


def _deployment(deployment: Deployment, settings: Settings, now: float) -> str:
    parts = [f"{deployment.name}: {deployment.provider} {deployment.provider_model}"]
    if deployment.model != deployment.provider_model:
        parts.append(f"as {deployment.model}")
    parts.append(_price(deployment.price, now))
    provider = settings.providers[deployment.provider]
    kind = provider.kind or deployment.provider
    if model_catalogue().find(kind, deployment.provider_model) is None:
        parts.append(f"unknown model: {', '.join(sorted(deployment.capabilities))}")
    if not deployment.enabled:
        parts.append("disabled")
    return ", ".join(parts)


def _price(price: Price | None, now: float) -> str:
    if price is None:
        return "unpriced"
    rates = price.rates(now)
    parts = [
        f"{word} ${rate.normalize():f}"
        for word, rate in (("in", rates.input), ("out", rates.output))
        if rate is not None
    ]
    return f"{' '.join(parts)} per million tokens"
