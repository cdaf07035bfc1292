"""The published price table compiled into the router's own prices."""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import Any

from trunkline_server.catalogue.price_table import LoadedTable, PriceTable, installed_table
from trunkline_server.catalogue.unit_prices import unit_price
from trunkline_server.routing.pricing import Price
from trunkline_server.routing.rates import SUFFICIENT, Rates, Tier, Version

# The table's price keys for what a Usage counts. Amounts are USD per million tokens or
# characters, or per hour.
_FIELDS: Mapping[str, str] = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cached_input",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "output_reasoning_mtok": "reasoning",
    "input_audio_mtok": "input_audio",
    "output_audio_mtok": "output_audio",
    "cache_audio_read_mtok": "cached_input_audio",
    "input_image_mtok": "input_image",
    "output_image_mtok": "output_image",
    "input_mchars": "input_characters",
    "input_audio_hours": "input_audio_hour",
}
# Images that a vendor has in its cache; none tells how many tokens of them a call read.
_UNCOUNTED = frozenset({"cache_image_read_mtok"})
# Said beside the hours of sound heard, where they are all that is charged.
_HOURS = "audio_hours"
# USD per thousand requests.
_REQUESTS = "requests_kcount"
# USD per thousand searches of the web: the one tool of vendors whose use a Usage counts.
_SEARCHES = "web_searches_kcount"
# Charges for a vendor's other tools come beside the tokens, and no Usage counts them.
_TOOL_CHARGES = frozenset(
    {
        "social_searches_kcount",
        "storage_searches_kcount",
        "code_executions_kcount",
    }
)
# Model ids come from callers, so what is remembered of them is bounded.
_MEMO_SIZE = 4096
# A day in a model id without its dashes, as some routers write it: -20251211.
_COMPACT_DATE = re.compile(r"(?<=-)(20\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=[-:]|$)")

Matcher = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model of the price table. `price` is None when it cannot be told from a Usage."""

    id: str
    name: str
    context_tokens: int
    deprecated: bool
    price: Price | None


@dataclass(frozen=True, slots=True)
class _Provider:
    models: tuple[tuple[Matcher, ModelRow], ...]
    fallbacks: tuple[str, ...]

    def match(self, model_id: str) -> ModelRow | None:
        for matches, row in self.models:
            if matches(model_id):
                return row
        return None


# The providers of the installed table that have been compiled.
_INSTALLED: dict[str, _Provider] = {}


class PriceBook:
    """Prices by provider and model, compiled when a provider is first asked for.

    Matching follows the table's own rules: each model's patterns in the table's order, then
    those of the providers it falls back to (a cloud that resells others' models), then the
    same with a compact date in the id spelled out.
    """

    def __init__(self, table: PriceTable | None = None) -> None:
        """The prices of a table; without one, of the installed genai-prices package, of which
        one compiled copy serves all books. Raises PriceTableError."""
        self._table = installed_table() if table is None else table
        self._providers = _INSTALLED if table is None else {}
        self._find = lru_cache(maxsize=_MEMO_SIZE)(self._search)

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> "PriceBook":
        """The prices of a table in the form of the published JSON."""
        return cls(LoadedTable(rows))

    def find(self, price_provider: str, model_id: str) -> Price | None:
        """The price of a vendor's model, by the vendor's id of it.

        None when the table has no such model or provider, or prices it by something that a
        Usage does not count (pages, videos): unknown, which is not free.
        """
        row = self._find(price_provider, model_id.lower())
        price = None if row is None else row.price
        if price is None and self._providers is _INSTALLED:
            price = unit_price(price_provider, model_id.lower())
        return price

    def model(self, price_provider: str, model_id: str) -> ModelRow | None:
        """The table's row for a vendor's model, found as `find` finds it."""
        return self._find(price_provider, model_id.lower())

    def models(self, price_provider: str) -> tuple[ModelRow, ...]:
        """The models that the table lists for a provider itself."""
        provider = self._provider(price_provider)
        return () if provider is None else tuple(row for _, row in provider.models)

    def _search(self, price_provider: str, model_id: str) -> ModelRow | None:
        provider = self._provider(price_provider)
        if provider is None:
            return None
        spelled = _COMPACT_DATE.sub(_spell_date, model_id)
        for candidate in dict.fromkeys((model_id, spelled)):
            row = provider.match(candidate)
            if row is not None:
                return row
            for name in provider.fallbacks:
                other = self._provider(name)
                row = other.match(candidate) if other is not None else None
                if row is not None:
                    return row
        return None

    def _provider(self, provider_id: str) -> _Provider | None:
        known = self._providers.get(provider_id)
        if known is None and provider_id in self._table.provider_ids:
            known = compile_provider(self._table.provider(provider_id))
            self._providers[provider_id] = known
        return known


def compile_provider(row: Mapping[str, Any]) -> _Provider:
    """One provider's row of the table, compiled."""
    models = tuple(
        (
            compile_match(model["match"]),
            ModelRow(
                id=model["id"],
                name=model.get("name") or model["id"],
                context_tokens=model.get("context_window") or 0,
                deprecated=bool(model.get("deprecated")),
                price=compile_price(model.get("prices") or {}),
            ),
        )
        for model in row.get("models", ())
    )
    return _Provider(models, tuple(row.get("fallback_model_providers") or ()))


def compile_match(clause: Mapping[str, Any]) -> Matcher:
    """A predicate over model ids in lower case. Raises ValueError for an unknown clause."""
    ((kind, value),) = clause.items()
    if kind in {"or", "or_"}:
        clauses = [compile_match(each) for each in value]
        return lambda text: any(matches(text) for matches in clauses)
    if kind in {"and", "and_"}:
        clauses = [compile_match(each) for each in value]
        return lambda text: all(matches(text) for matches in clauses)
    if kind == "regex":
        search = re.compile(value).search
        return lambda text: search(text) is not None
    wanted = value.lower()
    simple: Mapping[str, Matcher] = {
        "equals": lambda text: text == wanted,
        "starts_with": lambda text: text.startswith(wanted),
        "ends_with": lambda text: text.endswith(wanted),
        "contains": lambda text: wanted in text,
    }
    if kind not in simple:
        raise ValueError(f"unknown match clause {kind!r} in the price table")
    return simple[kind]


def compile_price(prices: Any) -> Price | None:
    """The price of a model row's `prices`: one set of amounts, or a list of sets with dates.

    None when any of them is empty or has amounts for what a Usage does not count.
    """
    entries = prices if isinstance(prices, list) else [{"prices": prices}]
    versions = []
    for entry in entries:
        amounts = {key: value for key, value in entry["prices"].items() if value is not None}
        version = _version(amounts, entry.get("constraint") or {})
        if version is None:
            return None
        versions.append(version)
    return Price(versions) if versions else None


def _version(amounts: Mapping[str, Any], constraint: Mapping[str, Any]) -> Version | None:
    known = amounts.keys() - _TOOL_CHARGES - _UNCOUNTED
    if amounts.get(_HOURS) == amounts.get("input_audio_hours"):
        known -= {_HOURS}
    if known - _FIELDS.keys() - {_REQUESTS, _SEARCHES}:
        return None
    if not any(_FIELDS.get(key) in SUFFICIENT for key in known):
        return None
    starts = sorted({start for key in known for start, _ in _tiers(amounts[key])})
    tiers = tuple(Tier(start, _rates(amounts, known, start + 1)) for start in starts)
    start = daily = None
    if "start_date" in constraint:
        day = constraint["start_date"]
        day = date.fromisoformat(day) if isinstance(day, str) else day
        start = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    elif constraint:
        daily = (_second_of_day(constraint["start_time"]), _second_of_day(constraint["end_time"]))
    return Version(_rates(amounts, known, 0), tiers, start, daily)


def _tiers(amount: Any) -> list[tuple[int, Any]]:
    """The thresholds of an amount, ascending; none for an amount without tiers."""
    if not isinstance(amount, Mapping):
        return []
    return sorted((tier["start"], tier["price"]) for tier in amount["tiers"])


def _rates(amounts: Mapping[str, Any], keys: Iterable[str], input_tokens: int) -> Rates:
    """The rates for a request of so many input tokens."""
    values: dict[str, Any] = {}
    for key in keys:
        amount = amounts[key]
        if isinstance(amount, Mapping):
            tiers = _tiers(amount)
            # A tier counts above its start.
            passed = bisect_left([start for start, _ in tiers], input_tokens)
            amount = tiers[passed - 1][1] if passed else amount["base"]
        value = Decimal(amount) if isinstance(amount, int) else amount
        if key == _REQUESTS:
            values["per_request"] = value / 1000
        elif key == _SEARCHES:
            values["search_unit"] = value / 1000
        else:
            values[_FIELDS[key]] = value
    return Rates(**values)


def _second_of_day(moment: str | time) -> float:
    """Seconds after midnight UTC; a time without a zone is UTC."""
    clock = time.fromisoformat(moment) if isinstance(moment, str) else moment
    utc = datetime.combine(date(2000, 1, 2), clock.replace(tzinfo=clock.tzinfo or UTC))
    return utc.timestamp() % 86_400


def _spell_date(found: re.Match[str]) -> str:
    year, month, day = found.groups()
    try:
        return date(int(year), int(month), int(day)).isoformat()
    except ValueError:
        return found.group()
