"""Labels: what each demands, and that stricter ones never demand less."""

from dataclasses import dataclass

import pytest

from trunkline_server.errors import TrunklineError
from trunkline_server.privacy.labels import LABEL_KEY, Classification, LabelPolicy, Level

EU, US = frozenset({"eu"}), frozenset({"us"})
LABELS = (
    LabelPolicy("public"),
    LabelPolicy("internal", denied_providers=frozenset({"cheap"})),
    LabelPolicy("confidential", mask=True, residency=frozenset({"eu", "ch"})),
    LabelPolicy(
        "restricted",
        residency=EU,
        allowed_providers=frozenset({"own", "cheap"}),
        may_cache=False,
        may_store_text=False,
        raised_by=frozenset({"US_SSN"}),
    ),
)


@dataclass
class Row:
    provider: str
    residency: frozenset[str]


def labels() -> Classification:
    return Classification(LABELS, "internal")


def broken(level: Level, provider: str, residency: frozenset[str]) -> str:
    """The demand of a label that a deployment breaks."""
    names = [fence.excludes(Row(provider, residency)) for fence in level.constraints]
    return "".join(names)


def test_labels_restrict_as_configured() -> None:
    public = labels().level({LABEL_KEY: "public"})
    assert public.constraints == ()
    assert not public.mask
    internal = labels().level({})
    assert internal.label == "internal"
    assert broken(internal, "cheap", EU) == "labels[internal].denied_providers"
    assert broken(internal, "other", US) == ""
    confidential = labels().level({LABEL_KEY: "confidential"})
    assert confidential.mask
    assert broken(confidential, "other", EU) == ""
    for elsewhere in (US, EU | US, frozenset[str]()):
        assert broken(confidential, "other", elsewhere) == "labels[confidential].residency"
    assert broken(confidential, "other", frozenset({"eu", "ch"})) == ""


def test_the_stricter_label_keeps_the_demands_of_the_laxer() -> None:
    restricted = labels().level({LABEL_KEY: "restricted"})
    assert restricted.mask
    assert broken(restricted, "own", EU) == ""
    assert broken(restricted, "own", frozenset({"ch"})) == "labels[restricted].residency"
    assert broken(restricted, "cheap", EU) == "labels[internal].denied_providers"
    assert broken(restricted, "other", EU) == "labels[restricted].allowed_providers"
    assert not restricted.may_cache
    assert not restricted.may_store_text


def test_text_that_may_not_be_stored_is_not_cached() -> None:
    level = Classification([LabelPolicy("a", may_store_text=False)], "a").default
    assert not level.may_cache


def test_what_is_found_raises_the_label_and_never_lowers_it() -> None:
    classes = labels()
    public, restricted = (
        classes.level({LABEL_KEY: "public"}),
        classes.level({LABEL_KEY: "restricted"}),
    )
    assert classes.raised(public, ["US_SSN"]) is restricted
    assert classes.raised(public, ["EMAIL_ADDRESS"]) is public
    assert classes.raised(restricted, ["US_SSN", "EMAIL_ADDRESS"]) is restricted


def test_text_is_searched_only_where_that_may_change_something() -> None:
    assert [level.examines for level in labels().levels] == [True, True, True, True]
    plain = [LabelPolicy("a"), LabelPolicy("b", raised_by=frozenset({"US_SSN"})), LabelPolicy("c")]
    assert [level.examines for level in Classification(plain, "a").levels] == [True, False, False]


def test_demands_that_exclude_each_other_leave_nowhere() -> None:
    nowhere = Classification(
        (LabelPolicy("a", residency=EU), LabelPolicy("b", residency=US)), "a"
    ).level({LABEL_KEY: "b"})
    assert broken(nowhere, "any", EU) == "labels[b].residency"
    assert broken(nowhere, "any", US) == "labels[a].residency"


def test_unknown_labels_are_refused_without_being_quoted() -> None:
    with pytest.raises(TrunklineError, match="configured are public") as refused:
        labels().level({LABEL_KEY: "top-secret-7"})
    assert "top-secret-7" not in refused.value.message
    assert refused.value.violations[0].field == f"context.labels[{LABEL_KEY}]"


def test_configurations_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Classification((LabelPolicy("a"), LabelPolicy("a")), "a")
    with pytest.raises(ValueError, match="default"):
        Classification((LabelPolicy("a"),), "internal")
