"""How calls are treated, and that those whose text does not matter are not searched."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import pytest
from google.protobuf.json_format import MessageToDict

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.privacy.detect import Detector
from trunkline_server.privacy.examiner import Examiner, ExaminerOptions, Treatment
from trunkline_server.privacy.labels import Classification, LabelPolicy
from trunkline_server.privacy.mask import Find
from trunkline_server.privacy.payload import PayloadRules
from trunkline_server.privacy.rule import Span

ANN, SSN = "ann@example.org", "536-22-1234"
LABELS = (
    LabelPolicy("open"),
    LabelPolicy("near", residency=frozenset({"eu"}), may_cache=False),
    LabelPolicy("masked", mask=True),
    LabelPolicy("closed", may_store_text=False, raised_by=frozenset({"US_SSN"})),
)
PLAIN = LABELS[:3]


class Ears:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, ...]] = []

    def masked(self, label: str) -> None:
        self.heard.append(("masked", label))

    def raised(self, label: str) -> None:
        self.heard.append(("raised", label))

    def payload(self, call_id: str, label: str, what: str, text: str, cut: bool) -> None:
        self.heard.append((what, call_id, label, text))


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def never(text: str) -> NoReturn:
    raise AssertionError(text)


def examiner(
    threads: ThreadPoolExecutor,
    labels: Sequence[LabelPolicy] = LABELS,
    find: Find = Detector().spans,  # noqa: B008 - stateless.
    payloads: PayloadRules | None = None,
    most_at_once: int = 1000,
) -> tuple[Examiner, Ears]:
    ears = Ears()
    options = ExaminerOptions(find, payloads=payloads, most_at_once=most_at_once)
    return Examiner(Classification(labels, "open"), options, ears, threads), ears


def asked(label: str, text: str = f"I am {ANN}") -> v1.GenerateRequest:
    request = v1.GenerateRequest(
        messages=[v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text=text)])]
    )
    if label:
        request.context.labels["data_classification"] = label
    return request


def treated(examiner: Examiner, request: v1.GenerateRequest | v1.EmbedRequest) -> Treatment:
    treatment = examiner.treat(request, "id-1")
    assert treatment is not None
    return treatment


def test_text_that_does_not_matter_is_not_looked_at(threads: ThreadPoolExecutor) -> None:
    plain, ears = examiner(threads, PLAIN, never)
    nothing = treated(plain, asked(""))
    assert nothing is treated(plain, asked("open")) is treated(plain, v1.EmbedRequest())
    assert (nothing.label, nothing.masked, nothing.veil) == ("open", None, None)
    assert nothing.may_cache
    near = treated(plain, asked("near"))
    assert near is treated(plain, asked("near"))
    assert near.constraints == plain.constraints(asked("near").context)
    assert not near.may_cache
    assert ears.heard == []


def test_a_label_that_masks_gives_a_copy_and_the_way_back(threads: ThreadPoolExecutor) -> None:
    masking, ears = examiner(threads, PLAIN)
    request = asked("masked")
    before = request.SerializeToString(deterministic=True)
    treatment = treated(masking, request)
    assert isinstance(treatment.masked, v1.GenerateRequest)
    assert treatment.masked.messages[0].parts[0].text == "I am [EMAIL_ADDRESS_1]"
    assert treatment.masked.context == request.context
    assert request.SerializeToString(deterministic=True) == before
    assert treatment.veil is not None
    assert ears.heard == [("masked", "masked")]
    # What holds nothing is not copied.
    treatment = treated(masking, asked("masked", "hello"))
    assert (treatment.masked, treatment.veil) == (None, None)


def test_what_is_found_decides_what_holds(threads: ThreadPoolExecutor) -> None:
    raising, ears = examiner(threads)
    treatment = treated(raising, asked("open", f"SSN {SSN}"))
    assert treatment.label == "closed"
    assert treatment.masked is not None
    assert not treatment.may_store_text
    assert not treatment.may_cache
    assert ears.heard == [("raised", "closed"), ("masked", "closed")]
    assert treated(raising, asked("open")).label == "open"
    assert treated(raising, asked("closed", f"SSN {SSN}")).label == "closed"
    assert [word for word, *_ in ears.heard] == ["raised", "masked", "masked"]


async def test_long_text_is_searched_in_a_thread_while_others_go_on(
    threads: ThreadPoolExecutor,
) -> None:
    where: list[str] = []
    going, detector = threading.Event(), Detector()

    def find(text: str) -> Sequence[Span]:
        if len(text) > 1000:
            where.append(threading.current_thread().name)
            assert going.wait(20)
        return detector.spans(text)

    masking, _ = examiner(threads, PLAIN, find)
    long = asked("masked", "word " * 300 + ANN)
    assert masking.treat(long, "id-1") is None
    examined = asyncio.create_task(masking.examine(long, "id-1"))
    await asyncio.sleep(0)
    assert treated(masking, asked("masked")).masked is not None
    going.set()
    treatment = await examined
    assert isinstance(treatment.masked, v1.GenerateRequest)
    assert ANN not in treatment.masked.messages[0].parts[0].text
    assert where
    assert threading.current_thread().name not in where


@pytest.mark.parametrize("label", ["nothing", "Open"])
async def test_unknown_labels_are_refused(threads: ThreadPoolExecutor, label: str) -> None:
    masking, _ = examiner(threads)
    request = asked(label)
    for ask in (
        lambda: masking.treat(request, ""),
        lambda: masking.constraints(request.context),
    ):
        with pytest.raises(TrunklineError, match="data_classification"):
            ask()
    with pytest.raises(TrunklineError, match="data_classification"):
        await masking.examine(request, "")


def test_payloads_are_noted_of_labels_that_may_be_stored(threads: ThreadPoolExecutor) -> None:
    rules = PayloadRules(1000, Detector().spans)
    noting, ears = examiner(threads, payloads=rules)
    for label in ("open", "masked", "closed"):
        treatment = treated(noting, asked(label))
        if treatment.veil is not None:
            treatment.veil.restored(v1.GenerateResponse())
    assert [row for row in ears.heard if row[0] != "masked"] == [
        ("request", "id-1", "open", "user: I am [EMAIL_ADDRESS]\n"),
        ("answer", "id-1", "open", ""),
        ("request", "id-1", "masked", "user: I am [EMAIL_ADDRESS_1]\n"),
        ("answer", "id-1", "masked", ""),
    ]


def full_request() -> v1.GenerateRequest:
    request = asked("masked")
    request.tools.add(name="f", description=f"for {ANN}", parameters_json='{"type": "object"}')
    request.tools.add(name="g", description="plain", parameters_json=f'{{"title": "{ANN}"}}')
    request.tools.add(name="h", description="plain", parameters_json="")
    request.config.stop.extend(["plain", ANN])
    schema = request.response_format.json_schema
    schema.description, schema.schema_json = f"of {ANN}", f'{{"default": "{SSN}"}}'
    request.provider_options.update({"a": {"b": [ANN, 1.5, None, True]}, "c": "plain"})
    request.context.user_id = ANN
    file = v1.File(data=b"%PDF", media_type="application/pdf", filename=f"to {ANN}, 2.pdf")
    request.messages.add(role=v1.ROLE_USER, name=ANN, parts=[v1.Part(file=file)])
    request.messages.add(role=v1.ROLE_USER, name="ann", parts=[v1.Part(text="plain")])
    return request


def test_everything_that_a_vendor_would_see_is_masked(threads: ThreadPoolExecutor) -> None:
    masking, _ = examiner(threads)
    request = full_request()
    masked = treated(masking, request).masked
    assert isinstance(masked, v1.GenerateRequest)
    assert ANN not in str(masked)
    assert SSN not in str(masked)
    assert [tool.description for tool in masked.tools] == [
        "for [EMAIL_ADDRESS_1]",
        "plain",
        "plain",
    ]
    assert masked.tools[1].parameters_json == '{"title": "[EMAIL_ADDRESS_1]"}'
    assert list(masked.config.stop) == ["plain", "[EMAIL_ADDRESS_1]"]
    assert masked.response_format.json_schema.schema_json == '{"default": "[US_SSN_1]"}'
    assert MessageToDict(masked.provider_options) == {
        "a": {"b": ["[EMAIL_ADDRESS_1]", 1.5, None, True]},
        "c": "plain",
    }
    assert masked.context.user_id == ""
    assert masked.messages[1].parts[0].file.filename == "to [EMAIL_ADDRESS_1], 2.pdf"
    assert [message.name for message in masked.messages] == ["", "", "ann"]
    assert request == full_request()


def test_a_speaker_who_is_named_by_data_alone_is_left_out(threads: ThreadPoolExecutor) -> None:
    masking, _ = examiner(threads)
    request = asked("masked", "plain")
    request.messages[0].name = ANN
    masked = treated(masking, request).masked
    assert isinstance(masked, v1.GenerateRequest)
    assert masked.messages[0] == v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text="plain")])


def test_a_user_who_is_named_by_data_alone_is_left_out(threads: ThreadPoolExecutor) -> None:
    masking, _ = examiner(threads)
    request = v1.EmbedRequest(inputs=["plain"], context=asked("masked").context)
    request.context.user_id = ANN
    treatment = treated(masking, request)
    assert isinstance(treatment.masked, v1.EmbedRequest)
    assert treatment.masked.context.user_id == ""
    assert list(treatment.masked.inputs) == ["plain"]
    assert treatment.veil is None
