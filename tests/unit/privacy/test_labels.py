"""Labels: what each demands, and that stricter ones never demand less."""

import pytest

from trunkline_server.errors import TrunklineError
from trunkline_server.privacy.labels import LABEL_KEY, Classification, LabelPolicy

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


def test_labels_restrict_as_configured() -> None:
    labels = Classification(LABELS)
    public = labels.constraints({LABEL_KEY: "public"})
    assert public.permits("cheap", frozenset())
    assert not public.mask
    internal = labels.constraints({})
    assert internal.label == "internal"
    assert not internal.permits("cheap", EU)
    assert internal.permits("other", US)
    confidential = labels.constraints({LABEL_KEY: "confidential"})
    assert confidential.mask
    assert confidential.permits("other", EU)
    for elsewhere in (US, EU | US, frozenset[str]()):
        assert not confidential.permits("other", elsewhere)
    assert confidential.permits("other", frozenset({"eu", "ch"}))


def test_the_stricter_label_keeps_the_demands_of_the_laxer() -> None:
    restricted = Classification(LABELS).constraints({LABEL_KEY: "restricted"})
    assert restricted.mask
    assert restricted.residency == EU
    assert restricted.permits("own", EU)
    assert not restricted.permits("cheap", EU)
    assert not restricted.permits("other", EU)
    assert not restricted.may_cache
    assert not restricted.may_store_text


def test_what_is_found_raises_the_label_and_never_lowers_it() -> None:
    labels = Classification(LABELS)
    assert labels.constraints({LABEL_KEY: "public"}, ["US_SSN"]).label == "restricted"
    assert labels.constraints({LABEL_KEY: "confidential"}, ["EMAIL_ADDRESS"]).label == (
        "confidential"
    )


def test_demands_that_exclude_each_other_leave_nowhere() -> None:
    labels = Classification(
        (LabelPolicy("a", residency=EU), LabelPolicy("b", residency=US)), default="a"
    )
    nowhere = labels.constraints({LABEL_KEY: "b"})
    assert nowhere.residency == frozenset()
    assert not nowhere.permits("any", EU)
    assert not nowhere.permits("any", US)


def test_unknown_labels_are_refused_without_being_quoted() -> None:
    with pytest.raises(TrunklineError, match="configured are public") as refused:
        Classification(LABELS).constraints({LABEL_KEY: "top-secret-7"})
    assert "top-secret-7" not in refused.value.message
    assert refused.value.violations[0].field == f"context.labels[{LABEL_KEY}]"


def test_configurations_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Classification((LabelPolicy("a"), LabelPolicy("a")), default="a")
    with pytest.raises(ValueError, match="default"):
        Classification((LabelPolicy("a"),))
