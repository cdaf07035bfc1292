"""How a requested model finds its route."""

from collections.abc import Mapping
from decimal import Decimal

import pytest

from tests.unit.routing.tables import BUILT_AT, deployment, flat
from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.routing.pricing import Price
from trunkline_server.routing.rates import Rates, Version
from trunkline_server.routing.snapshot import ProviderTemplate, Route, Snapshot, near

PRICE = flat("1", "2")
ROWS = (deployment(0, model="gpt-5"), deployment(1, model="gpt-5-mini"))
GPT, MINI = (Route("", v1.STRATEGY_PRIORITY, (row,)) for row in ROWS)
CHEAP = Route("cheap", v1.STRATEGY_LOWEST_COST, ROWS)
SLASHED = Route("", v1.STRATEGY_PRIORITY, ROWS)
OPENAI = ProviderTemplate(
    "openai", 2, "us-1", frozenset({"us"}), frozenset({"chat"}), {"o9": PRICE}.get
)


def snapshot(models: Mapping[str, Route] | None = None) -> Snapshot:
    return Snapshot(
        "v7",
        ROWS,
        models
        if models is not None
        else {"gpt-5": GPT, "gpt-5-mini": MINI, "openai/tuned": SLASHED},
        {"cheap": CHEAP},
        {"openai": OPENAI},
        BUILT_AT,
    )


def test_public_names_and_routes() -> None:
    table = snapshot()
    assert table.resolve("gpt-5") is GPT
    assert table.resolve("route:cheap") is CHEAP
    assert table.resolve("openai/tuned") is SLASHED, "public names win over provider/model"


def test_empty_means_all_deployments_balanced() -> None:
    route = snapshot().resolve("")
    assert route.members == ROWS
    assert route.strategy == v1.STRATEGY_BALANCED
    assert route.name == ""


def test_a_provider_and_a_model_make_a_deployment() -> None:
    table = snapshot()
    route = table.resolve("openai/o9")
    (row,) = route.members
    assert (row.name, row.model, row.provider, row.provider_model, row.slot) == (
        "openai/o9",
        "openai/o9",
        "openai",
        "o9",
        2,
    )
    assert row.price is PRICE
    assert row.region == "us-1"
    assert row.residency == {"us"}
    assert row.capabilities == {"chat"}
    assert table.resolve("openai/o9") is route
    assert table.resolve("openai/org/with/slashes").members[0].provider_model == "org/with/slashes"
    assert table.resolve("openai/unheard-of").members[0].price is None


def test_passed_through_models_are_remembered_within_bounds() -> None:
    table = snapshot()
    first = table.resolve("openai/0")
    for number in range(1, 3_000):
        table.resolve(f"openai/{number}")
    assert table.resolve("openai/2999") is table.resolve("openai/2999")
    assert table.resolve("openai/0") is not first
    assert table.resolve("openai/0") == first


def test_slots_cover_deployments_and_providers() -> None:
    assert snapshot().slots == 3
    assert Snapshot("v", [], {}, {}, {}, 0.0).slots == 0


@pytest.mark.parametrize(
    ("model", "matches"),
    [
        ("gpt5", "gpt-5"),
        ("route:chaep", "route:cheap"),
        ("opneai/o9", "openai/o9"),
        ("zzzzzz", None),
        ("openai/", None),
        ("route:", None),
        ("x" * 100_000, None),
        ("openai/" + "x" * 100_000, None),
    ],
)
def test_unknown_names_are_not_found_and_near_ones_are_named(
    model: str, matches: str | None
) -> None:
    with pytest.raises(TrunklineError) as caught:
        snapshot().resolve(model)
    error = caught.value
    assert error.reason == v1.ERROR_REASON_MODEL_NOT_FOUND
    assert error.metadata["model"] == model[:128]
    assert len(error.message) < 400
    if matches is not None:
        assert matches in error.metadata["near"].split(", ")
        assert matches in error.message


def test_near_names_out_of_the_callers_sight_are_not_told() -> None:
    with pytest.raises(TrunklineError) as caught:
        snapshot().resolve("gpt5", visible=frozenset({"gpt-5-mini"}))
    assert "gpt-5" not in caught.value.metadata.get("near", "").split(", ")


def test_of_very_many_names_near_ones_are_still_found() -> None:
    names = [f"model-{number:05}" for number in range(10_000)]
    assert "model-04242" in near("model-4242", names)


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="max_targets"):
        Route("r", v1.STRATEGY_PRIORITY, (), max_targets=0)
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="d0: a weight"):
            deployment(0, weight=weight)


def test_the_next_price_change_is_known() -> None:
    rates = Rates(input=Decimal(1), output=Decimal(2))
    midnight = BUILT_AT - BUILT_AT % 86_400
    started = Price([Version(rates), Version(rates, start=BUILT_AT + 1e6)])
    nightly = Price([Version(rates), Version(rates, daily=(3_600.0, 7_200.0))])
    past = Price([Version(rates), Version(rates, start=BUILT_AT - 5)])

    def change(*prices: Price | None) -> float | None:
        rows = [deployment(slot, price=price) for slot, price in enumerate(prices)]
        return Snapshot("v", rows, {}, {}, {}, BUILT_AT).next_price_change()

    assert change(PRICE, None, past) is None
    assert change(PRICE, started) == BUILT_AT + 1e6
    # BUILT_AT is 08:53 UTC: the next change is at one o'clock tomorrow.
    assert change(started, nightly) == midnight + 86_400 + 3_600
