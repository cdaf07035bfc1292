"""The privacy section: its defaults, and a full one."""

from trunkline_server.privacy.rules import KINDS
from trunkline_server.settings import LabelSettings, PrivacySettings, Settings, parse
from trunkline_server.settings.privacy import DEFAULT_LABELS, DETECTIONS

PROVIDERS = "providers: {p: {dialect: openai, base_url: 'http://a'}}\n"


def read(text: str) -> Settings:
    return parse(PROVIDERS + text, "trunkline.yaml", {})


def test_off_unless_the_section_is_there() -> None:
    assert read("").privacy is None
    assert read("privacy: {}").privacy == read("privacy:").privacy == PrivacySettings()


def test_the_types_are_those_that_there_are_rules_for() -> None:
    assert sorted(DETECTIONS) == sorted(KINDS)
    assert PrivacySettings().detect == DETECTIONS


def test_the_usual_labels_grow_stricter() -> None:
    assert [label.name for label in DEFAULT_LABELS] == [
        "public",
        "internal",
        "confidential",
        "restricted",
    ]
    strictness = [
        (label.mask, not label.may_cache, not label.may_store_text) for label in DEFAULT_LABELS
    ]
    assert strictness == sorted(strictness)


def test_a_full_section() -> None:
    privacy = read(
        """
privacy:
  labels:
    - name: open
    - name: ours
      mask: true
      residency: [EU, ch]
      allowed_providers: p
      may_cache: false
      may_store_text: false
      raised_by: [PERSON, US_SSN]
  default_label: open
  detect: [US_SSN, EMAIL_ADDRESS]
  presidio: {url: "http://127.0.0.1:5002/", timeout: 250ms, on_outage: inline, rest: 1s,
             language: de, least_score: 0.4, entities: [PERSON]}
  payloads: {log: true, max_chars: 100}
"""
    ).privacy
    assert privacy is not None
    assert privacy.labels == (
        LabelSettings(name="open"),
        LabelSettings(
            name="ours",
            mask=True,
            residency=("eu", "ch"),
            allowed_providers=("p",),
            may_cache=False,
            may_store_text=False,
            raised_by=("PERSON", "US_SSN"),
        ),
    )
    assert privacy.default_label == "open"
    assert privacy.detect == ("US_SSN", "EMAIL_ADDRESS")
    analyzer = privacy.presidio
    assert analyzer is not None
    assert (analyzer.url, analyzer.timeout, analyzer.on_outage) == (
        "http://127.0.0.1:5002",
        0.25,
        "inline",
    )
    assert (analyzer.rest, analyzer.language, analyzer.least_score) == (1.0, "de", 0.4)
    assert analyzer.entities == ("PERSON",)
    assert (privacy.payloads.log, privacy.payloads.max_chars) == (True, 100)


def test_the_analyzer_may_know_types_that_nobody_listed() -> None:
    read(
        "privacy: {labels: [{name: a}, {name: b, raised_by: ANYTHING}], default_label: a,"
        " presidio: {url: 'http://a'}}"
    )
