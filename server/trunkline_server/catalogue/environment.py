"""A configuration made from the environment alone, for those who have only a key."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from trunkline_server.catalogue.extensions import provider_rows
from trunkline_server.catalogue.models import model_catalogue
from trunkline_server.catalogue.prices import PriceBook
from trunkline_server.settings import (
    ConfigError,
    DeploymentSettings,
    InvalidValueError,
    Problem,
    ProviderSettings,
    Settings,
    place_of,
    resolve_secret,
    usual_key,
)


def from_environment(env: Mapping[str, str], book: PriceBook | None = None) -> Settings | None:
    """The settings for every provider whose usual variable holds a key; None without any.

    Each of the provider's models that the price table or the catalogue lists and both know is
    public under the vendor's own id; further ones, and all of hosts that the table knows by other
    ids, are reached as provider/model. Raises ConfigError for a key that no header may hold.
    """
    book = book or PriceBook()
    providers = {}
    models: list[tuple[str, str]] = []
    for name, row in provider_rows().items():
        reference = usual_key(row.env, env)
        # What else stands in a URL, no variable says.
        if reference is None or not all(place_of(row.base_url, row.region, row.flags).values()):
            continue
        try:
            secret = resolve_secret(reference, env, Path())
        except InvalidValueError as error:
            raise ConfigError("the environment", [Problem(0, "", str(error))]) from None
        providers[name] = ProviderSettings(kind=name, api_key=secret)
        if row.listed:
            models += [(name, model) for model in _offered(name, row.price_provider, book)]
    if not providers:
        return None
    deployments = tuple(
        DeploymentSettings(provider=name, model=model)
        for name, model in models
        # Such a public name would take that provider's place where it is asked by name.
        if "/" not in model or model.partition("/")[0] not in providers
    )
    return Settings(providers=providers, deployments=deployments)


def _offered(kind: str, price_provider: str, book: PriceBook) -> Iterator[str]:
    """The models of a kind that are known, priced and fit for plain use."""
    catalogue = model_catalogue()
    priced = [model.id for model in book.models(price_provider)]
    for model_id in dict.fromkeys([*priced, *catalogue.named(kind)]):
        entry = catalogue.find(kind, model_id)
        row = book.model(price_provider, model_id)
        if entry is None or not entry.listed or row is None:
            continue
        if row.price and not row.deprecated:
            yield model_id
