"""Compiled prices against the genai-prices package itself, model by model."""

import random
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cache
from pathlib import Path

import pytest
from genai_prices import data as reference
from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices, Usage

from trunkline import v1
from trunkline_server.catalogue.price_table import InstalledTable, PriceTableError
from trunkline_server.catalogue.prices import PriceBook, compile_match, compile_price

# Price keys of which a Usage counts nothing, so that the model's price is unknown.
NOT_COUNTED = ("video", "citation", "pages", "messages")
# Those of which a price needs one.
SUFFICIENT = {"input_mtok", "output_mtok", "input_audio_hours", "input_mchars"}


@cache
def book() -> PriceBook:
    return PriceBook()


def every_model() -> Iterator[tuple[Provider, ModelInfo]]:
    for provider in reference.providers:
        for model in provider.models:
            yield provider, model


def versions(model: ModelInfo) -> list[ModelPrice]:
    if isinstance(model.prices, ModelPrice):
        return [model.prices]
    return [conditional.prices for conditional in model.prices]


def price_keys(prices: ModelPrice) -> set[str]:
    return {key for key, value in vars(prices).items() if value is not None}


def moments(model: ModelInfo) -> list[datetime]:
    """Times around every change of the model's price, and around every hour of a day."""
    found = [datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)]
    if isinstance(model.prices, list):
        for conditional in model.prices:
            day = getattr(conditional.constraint, "start_date", None)
            if day is not None:
                midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
                found += [midnight - timedelta(seconds=1), midnight]
            elif conditional.constraint is not None:
                day_start = datetime(2026, 11, 20, tzinfo=UTC)
                found += [day_start + timedelta(minutes=30 * step) for step in range(48)]
    return found


def thresholds(model: ModelInfo) -> list[int]:
    return sorted(
        {
            tier.start
            for prices in versions(model)
            for value in vars(prices).values()
            if isinstance(value, TieredPrices)
            for tier in value.tiers
        }
    )


def nanos(usd: Decimal) -> int:
    return int((usd * 10**9).quantize(Decimal(1), rounding=ROUND_HALF_EVEN))


def test_every_model_costs_what_the_package_says() -> None:
    rng = random.Random(7)
    compared = 0
    for provider, model in every_model():
        ours = next(row for row in book().models(provider.id) if row.id == model.id).price
        if ours is None:
            continue
        for at in moments(model):
            for size in (
                0,
                1,
                rng.randrange(100_000),
                *(t + d for t in thresholds(model) for d in (0, 1)),
            ):
                total = size if priced(model, "input_mtok") else 0
                cached_audio, audio, cached, write, write_1h, seen = (
                    rng.randrange(total // 7 + 1) for _ in range(6)
                )
                written = rng.randrange(50_000) if priced(model, "output_mtok") else 0
                thought, spoken, drawn = (rng.randrange(written // 3 + 1) for _ in range(3))
                seconds = rng.randrange(100_000) if priced(model, "input_audio_hours") else 0
                characters = rng.randrange(100_000) if priced(model, "input_mchars") else 0
                theirs = model.calc_price(
                    Usage(
                        input_tokens=total,
                        cache_read_tokens=cached + cached_audio,
                        cache_write_tokens=write + write_1h,
                        cache_write_1h_tokens=write_1h,
                        input_audio_tokens=audio + cached_audio,
                        cache_audio_read_tokens=cached_audio,
                        output_tokens=written,
                        output_reasoning_tokens=thought,
                        output_audio_tokens=spoken,
                        input_image_tokens=seen,
                        cache_image_read_tokens=0,
                        cache_image_write_tokens=0,
                        output_image_tokens=drawn,
                        audio_seconds=seconds,
                        input_audio_seconds=seconds,
                        input_characters=characters,
                        web_searches=0,
                    ),
                    provider,
                    genai_request_timestamp=at,
                )
                cost = ours.cost(
                    v1.Usage(
                        input_tokens=total,
                        cached_input_tokens=cached + cached_audio,
                        cache_write_tokens=write + write_1h,
                        cache_write_1h_tokens=write_1h,
                        input_audio_tokens=audio + cached_audio,
                        cached_input_audio_tokens=cached_audio,
                        output_tokens=written,
                        reasoning_tokens=thought,
                        output_audio_tokens=spoken,
                        input_image_tokens=seen,
                        output_image_tokens=drawn,
                        input_audio_ms=1000 * seconds,
                        input_characters=characters,
                    ),
                    at.timestamp(),
                )
                assert (cost.input, cost.output, cost.total) == (
                    nanos(theirs.input_price),
                    nanos(theirs.output_price),
                    nanos(theirs.total_price),
                ), (provider.id, model.id, at, total)
                compared += 1
    assert compared > 5000


def priced(model: ModelInfo, key: str) -> bool:
    return all(key in price_keys(prices) for prices in versions(model))


def test_exactly_the_countable_models_have_a_price() -> None:
    for provider, model in every_model():
        ours = next(row for row in book().models(provider.id) if row.id == model.id).price
        countable = all(
            SUFFICIENT & price_keys(prices)
            and prices.audio_hours == (prices.audio_hours and prices.input_audio_hours)
            and not any(part in key for key in price_keys(prices) for part in NOT_COUNTED)
            for prices in versions(model)
        )
        assert (ours is not None) == countable, (provider.id, model.id)


def test_models_are_found_as_the_package_finds_them() -> None:
    asked = 0
    for provider, model in every_model():
        for name in (model.id, model.id.upper(), f"{model.id}-20251211", f"x-{model.id}"):
            expected = provider.find_model(name, all_providers=reference.providers)
            found = book().model(provider.id, name)
            assert (found and found.id) == (expected and expected.id), (provider.id, name)
            asked += 1
    assert asked > 4000


@pytest.mark.parametrize(
    ("provider", "name", "found"),
    [
        ("openai", "gpt-5-2025-08-07", "gpt-5"),
        ("openai", "gpt-5-20250807", "gpt-5"),
        ("azure", "gpt-4o", "gpt-4o"),
        ("anthropic", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("openai", "gpt-5-20259999", None),
        ("openai", "no-such-model", None),
        ("no-such-provider", "gpt-5", None),
    ],
)
def test_matching(provider: str, name: str, found: str | None) -> None:
    row = book().model(provider, name)
    assert (row and row.id) == found
    assert (book().find(provider, name) is None) == (found is None)


def test_model_rows_carry_the_table_s_metadata() -> None:
    row = book().model("anthropic", "claude-sonnet-4-5")
    theirs = next(
        model
        for provider, model in every_model()
        if provider.id == "anthropic" and model.id == "claude-sonnet-4-5"
    )
    assert row is not None
    assert (row.name, row.context_tokens) == (theirs.name, theirs.context_window)


def test_the_table_s_providers_in_order() -> None:
    assert list(InstalledTable().provider_ids) == [each.id for each in reference.providers]


def test_the_package_itself_is_not_imported() -> None:
    """It costs half a second and tens of megabytes; see price_table."""
    program = (
        "import sys\n"
        "from trunkline_server.catalogue.prices import PriceBook\n"
        "assert PriceBook().find('openai', 'gpt-5') is not None\n"
        "print(sorted({'genai_prices', 'pydantic', 'httpx2'} & set(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def test_only_the_providers_asked_for_are_read() -> None:
    class Recorder(InstalledTable):
        def __init__(self) -> None:
            super().__init__()
            self.read: list[str] = []

        def provider(self, provider_id: str) -> dict[str, object]:
            self.read.append(provider_id)
            return dict(super().provider(provider_id))

    table = Recorder()
    prices = PriceBook(table)
    assert table.read == []
    prices.find("anthropic", "claude-sonnet-4-5")
    prices.find("anthropic", "claude-opus-4-1")
    assert table.read == ["anthropic"]


def test_prices_in_the_form_of_the_published_json() -> None:
    price = compile_price(
        [
            {"constraint": None, "prices": {"input_mtok": 2, "output_mtok": Decimal("0.5")}},
            {
                "constraint": {"start_time": "16:30:00Z", "end_time": "00:30:00Z"},
                "prices": {"input_mtok": 1, "output_mtok": 1, "web_searches_kcount": 10},
            },
            {
                "constraint": {"start_date": "2026-09-01"},
                "prices": {
                    "input_mtok": {"base": 3, "tiers": [{"start": 100, "price": 6}]},
                    "output_mtok": 4,
                    "requests_kcount": 5,
                },
            },
        ]
    )
    assert price is not None
    million = v1.Usage(input_tokens=1_000_000)

    def dollars(text: str, usage: v1.Usage = million) -> Decimal:
        at = datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
        return Decimal(price.cost(usage, at).total) / 10**9

    assert dollars("2026-08-31T12:00") == 2
    assert dollars("2026-08-31T16:29:59") == 2
    assert dollars("2026-08-31T16:30") == 1
    assert dollars("2026-08-31T00:29:59") == 1
    assert dollars("2026-08-31T00:30") == 2
    assert dollars("2026-09-01T00:00") == Decimal("6.005")
    assert dollars("2026-09-01T00:00", v1.Usage(input_tokens=100)) == Decimal("0.0053")


@pytest.mark.parametrize(
    "prices",
    [
        {},
        [],
        {"input_mtok": None},
        {"requests_kcount": 5},
        {"input_mtok": 1, "output_mtok": 2, "output_video_mtok": 30},
        {"audio_hours": 1},
        {"audio_hours": 2, "input_audio_hours": 1},
        [{"prices": {"input_mtok": 1}}, {"prices": {}}],
    ],
)
def test_unknown_prices_are_none_not_zero(prices: object) -> None:
    assert compile_price(prices) is None


@pytest.mark.parametrize(
    ("clause", "text", "matches"),
    [
        ({"equals": "GPT-5"}, "gpt-5", True),
        ({"equals": "gpt-5"}, "gpt-5-mini", False),
        ({"starts_with": "gpt"}, "gpt-5", True),
        ({"ends_with": "mini"}, "gpt-5-mini", True),
        ({"contains": "-5-"}, "gpt-5-mini", True),
        ({"regex": "^o[134]$"}, "o3", True),
        ({"regex": "^o[134]$"}, "o3-mini", False),
        ({"or": [{"equals": "a"}, {"equals": "b"}]}, "b", True),
        ({"and": [{"starts_with": "a"}, {"ends_with": "b"}]}, "a", False),
        ({"and_": [{"starts_with": "a"}, {"or_": [{"ends_with": "b"}]}]}, "a-b", True),
    ],
)
def test_match_clauses(clause: dict[str, object], text: str, matches: bool) -> None:
    assert compile_match(clause)(text) is matches


def test_an_unknown_clause_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown match clause 'sounds_like'"):
        compile_match({"sounds_like": "gpt"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "genai-prices has no table"),
        ("providers = []\n", "genai-prices has its table in a form that is not understood"),
        (
            "    Provider(\n        id='a',\n        models=[Modell()],\n    ),\n",
            "genai-prices has a in a form that is not understood: name 'Modell' is not defined",
        ),
        (
            "    Provider(\n        id='a',\n        models=[\n    ),\n",
            "genai-prices has a in a form that is not understood",
        ),
    ],
)
def test_a_table_that_is_not_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, message: str
) -> None:
    package = tmp_path / "genai_prices"
    package.mkdir()
    (package / "__init__.py").touch()
    if text is not None:
        (package / "data.py").write_text(text)
    monkeypatch.delitem(sys.modules, "genai_prices", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(PriceTableError, match=message):
        PriceBook(InstalledTable()).models("a")


def test_a_table_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "genai_prices", raising=False)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(PriceTableError, match="genai-prices is not installed"):
        InstalledTable()
