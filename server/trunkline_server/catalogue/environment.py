"""A configuration made from the environment alone, for those who have only a key."""

from collections.abc import Mapping
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

    Each of the provider's models that the price table lists and the catalogue knows is public
    under the vendor's own id; further ones are reached as provider/model. Raises ConfigError
    for a key that no header may hold.
    """
    book = book or PriceBook()
    providers = {}
    deployments: list[DeploymentSettings] = []
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
        for model in book.models(row.price_provider):
            entry = model_catalogue().find(name, model.id)
            if entry is not None and entry.listed and model.price and not model.deprecated:
                deployments.append(DeploymentSettings(provider=name, model=model.id))
    if not providers:
        return None
    return Settings(providers=providers, deployments=tuple(deployments))
