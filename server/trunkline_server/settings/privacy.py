"""The configuration of privacy: labels, masking, the analyzer, payload logging."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from trunkline_server.settings import values as read
from trunkline_server.settings.problems import suggestion
from trunkline_server.settings.records import list_of, record

# The types of personal data that are recognised here; privacy.rules has a rule for each.
DETECTIONS = (
    "API_KEY",
    "CREDIT_CARD",
    "DATE_OF_BIRTH",
    "DE_TAX_ID",
    "DRIVER_LICENSE",
    "EMAIL_ADDRESS",
    "IBAN_CODE",
    "IP_ADDRESS",
    "MAC_ADDRESS",
    "PASSPORT",
    "PHONE_NUMBER",
    "UK_NINO",
    "URL_CREDENTIALS",
    "US_SSN",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSettings:
    """`privacy.labels[]`: what a data classification demands. What the laxer ones before it
    demand holds as well."""

    # What callers write as context.labels[data_classification].
    name: Annotated[str, read.text]
    # Whether vendors see placeholders in place of personal data.
    mask: Annotated[bool, read.boolean] = False
    # Regions in one or more of which the data may be processed, and nowhere else. Empty: anywhere.
    residency: Annotated[tuple[str, ...], read.words] = ()
    # Names of providers. Empty: all, and none.
    allowed_providers: Annotated[tuple[str, ...], read.texts] = ()
    denied_providers: Annotated[tuple[str, ...], read.texts] = ()
    # Whether the answer cache may be used, and whether text may be kept at all: cached, or logged.
    may_cache: Annotated[bool, read.boolean] = True
    may_store_text: Annotated[bool, read.boolean] = True
    # Types of personal data that make a call one of this label. Empty: none do.
    raised_by: Annotated[tuple[str, ...], read.texts] = ()


DEFAULT_LABELS = (
    LabelSettings(name="public"),
    LabelSettings(name="internal"),
    LabelSettings(name="confidential", mask=True),
    LabelSettings(name="restricted", mask=True, may_cache=False, may_store_text=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyzerSettings:
    """`privacy.presidio`: Presidio's analyzer, asked beside the patterns here."""

    # Its address; texts go to URL/analyze.
    url: Annotated[str, read.base_url]
    # For all texts of one call together.
    timeout: Annotated[float, read.duration(0.01, 60)] = 0.5
    # While it is away: deny the calls that it should have searched, or go on with the patterns
    # here alone (inline).
    on_outage: Annotated[str, read.choice("deny", "inline")] = "deny"
    # For so long after a failure it is not asked.
    rest: Annotated[float, read.duration(0, 3600)] = 5.0
    language: Annotated[str, read.text] = "en"
    least_score: Annotated[float, read.number(0, 1)] = 0.5
    # Types that it is asked for, such as PERSON. Empty: all that it knows.
    entities: Annotated[tuple[str, ...], read.texts] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadSettings:
    """`privacy.payloads`: whether the log has what calls ask and are answered."""

    # Redacted, and never for labels whose text may not be stored.
    log: Annotated[bool, read.boolean] = False
    # The most characters of a request, and of an answer.
    max_chars: Annotated[int, read.integer(1, 65_536)] = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacySettings:
    """`privacy`: what calls' data classification demands. Unset, labels mean nothing."""

    # The strictest last.
    labels: Annotated[tuple[LabelSettings, ...], list_of(record(LabelSettings))] = DEFAULT_LABELS
    # The label of calls that name none.
    default_label: Annotated[str, read.text] = "internal"
    # The types of personal data that are looked for.
    detect: Annotated[tuple[str, ...], read.choices(*DETECTIONS)] = DETECTIONS
    presidio: Annotated[AnalyzerSettings | None, record(AnalyzerSettings)] = None
    payloads: Annotated[PayloadSettings, record(PayloadSettings)] = PayloadSettings()


def privacy_complaints(
    privacy: PrivacySettings | None, providers: Collection[str]
) -> Iterator[tuple[str, str]]:
    """What is wrong between the values: path and message."""
    if privacy is None:
        return
    names = [label.name for label in privacy.labels]
    if not names:
        yield "privacy.labels", "is an empty list; name at least one, or leave the key out"
        return
    if not privacy.detect and privacy.presidio is None:
        yield (
            "privacy.detect",
            "is an empty list, and nobody else is asked: labels that mask would mask nothing",
        )
    if privacy.default_label and privacy.default_label not in names:
        hint = suggestion(privacy.default_label, names) or f"; labels are {', '.join(names)}"
        yield (
            "privacy.default_label",
            f"{privacy.default_label!r} is not the name of a label{hint}",
        )
    for index, label in enumerate(privacy.labels):
        path = f"privacy.labels[{index}]"
        if label.name and label.name in names[:index]:
            yield f"{path}.name", f"is that of labels[{names.index(label.name)}] too"
        yield from _label_providers(path, label, providers)
        yield from _raised_by(path, index, label, privacy)
        yield from _left(path, index, privacy.labels)


def _label_providers(
    path: str, label: LabelSettings, providers: Collection[str]
) -> Iterator[tuple[str, str]]:
    for key, named in (
        ("allowed_providers", label.allowed_providers),
        ("denied_providers", label.denied_providers),
    ):
        for place, name in enumerate(named):
            if name and name not in providers:
                hint = suggestion(name, providers)
                yield f"{path}.{key}[{place}]", f"{name!r} is not under providers{hint}"
    for place, name in enumerate(label.denied_providers):
        if name and name in label.allowed_providers:
            yield f"{path}.denied_providers[{place}]", f"{name!r} is among the allowed ones too"


def _raised_by(
    path: str, index: int, label: LabelSettings, privacy: PrivacySettings
) -> Iterator[tuple[str, str]]:
    if label.raised_by and index == 0:
        yield f"{path}.raised_by", "raises nothing: no label is laxer than the first"
    known = set(privacy.detect)
    analyzer = privacy.presidio
    if analyzer is not None and not analyzer.entities:
        return  # It may know types that are not listed anywhere here.
    if analyzer is not None:
        known.update(analyzer.entities)
    for place, kind in enumerate(label.raised_by):
        if kind and kind not in known:
            off = kind in DETECTIONS
            what = "is not among the types to detect" if off else "is no type that is detected"
            hint = "" if off else suggestion(kind, known)
            yield f"{path}.raised_by[{place}]", f"{kind!r} {what}{hint}"


def _left(path: str, index: int, labels: Sequence[LabelSettings]) -> Iterator[tuple[str, str]]:
    """Whether a label leaves any place once those before it have had their say."""
    label = labels[index]
    for key, own, others in (
        ("residency", label.residency, [each.residency for each in labels[:index]]),
        (
            "allowed_providers",
            label.allowed_providers,
            [each.allowed_providers for each in labels[:index]],
        ),
    ):
        left = set(own)
        for other in others:
            if other and left:
                left &= set(other)
        if own and not left:
            yield f"{path}.{key}", "leaves nothing of what the labels before it permit"
