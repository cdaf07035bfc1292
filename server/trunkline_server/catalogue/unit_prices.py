"""Prices that the price table lacks, because what they charge is not counted in tokens."""

import re
from dataclasses import dataclass, fields
from fnmatch import translate
from functools import cache, lru_cache
from importlib import resources
from typing import Annotated

from trunkline_server.routing.pricing import Price
from trunkline_server.routing.rates import Rates
from trunkline_server.settings import PriceSettings, list_of, read, read_price, read_records, record


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPriceEntry:
    """One entry of unit_prices.yaml; `as_of` is the month in which its price was known."""

    match: Annotated[tuple[str, ...], read.texts]
    as_of: Annotated[str, read.text]
    price: Annotated[PriceSettings, read_price]


def price_of(settings: PriceSettings) -> Price:
    """A configured price, which never changes."""
    return Price.flat(Rates(**{row.name: getattr(settings, row.name) for row in fields(settings)}))


# Model ids come from callers, so what is remembered of them is bounded.
@lru_cache(maxsize=4096)
def unit_price(price_provider: str, model_id: str) -> Price | None:
    """The price of a vendor's model, by the vendor's id of it in lower case; None: unknown."""
    for pattern, found in _entries().get(price_provider, ()):
        if pattern.match(model_id):
            return found
    return None


@cache
def _entries() -> dict[str, tuple[tuple[re.Pattern[str], Price], ...]]:
    """Raises ConfigError for an entry that is wrong."""
    text = resources.files(__package__).joinpath("unit_prices.yaml").read_text("utf-8")
    sections = read_records(text, "unit_prices.yaml", list_of(record(UnitPriceEntry)))
    return {
        name: tuple(
            (re.compile("|".join(map(translate, entry.match))), price_of(entry.price))
            for entry in entries
        )
        for name, entries in sections.items()
    }
