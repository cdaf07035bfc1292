"""The way back of whole answers and of streams, serialised or not, and what is noted of them."""

import random

import pytest

from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.privacy.detect import Detector
from trunkline_server.privacy.mask import MaskMap
from trunkline_server.privacy.payload import PayloadNote, PayloadRules
from trunkline_server.privacy.veil import Veil

ANN = "ann@example.org"
ANSWER = 'Hello [EMAIL_ADDRESS_1], your SSN is 536-22-1234. Bye, [EMAIL_ADDRESS_1] {"a": [1]}'


class Ears:
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.payloads: list[tuple[str, str, str, str, bool]] = []

    def masked(self, label: str) -> None:
        raise AssertionError

    def raised(self, label: str) -> None:
        raise AssertionError

    def payload(self, call_id: str, label: str, what: str, text: str, cut: bool) -> None:
        self.payloads.append((call_id, label, what, text, cut))


def made_map() -> MaskMap:
    map_ = MaskMap()
    map_.placeholder("EMAIL_ADDRESS", ANN)
    return map_


def note(ears: Ears, limit: int = 1000) -> PayloadNote:
    return PayloadNote(PayloadRules(limit, Detector().spans), ears, "id-1", "internal")


def response(text: str = ANSWER) -> v1.GenerateResponse:
    made = v1.GenerateResponse(id="id-1", usage=v1.Usage(input_tokens=3))
    made.message.parts.add(text=text)
    return made


@pytest.mark.parametrize("serialised", [False, True])
def test_an_answer_is_restored_and_the_given_one_is_not_changed(serialised: bool) -> None:
    given = response()
    restored = Veil(made_map(), None).restored(given.SerializeToString() if serialised else given)
    assert restored.message.parts[0].text == ANSWER.replace("[EMAIL_ADDRESS_1]", ANN)
    assert restored.usage == given.usage
    assert given == response()


@pytest.mark.parametrize("serialised", [False, True])
@pytest.mark.parametrize("seed", range(10))
async def test_a_stream_is_restored(serialised: bool, seed: int) -> None:
    rng = random.Random(seed)
    ears, sent = Ears(), list[v1.StreamGenerateResponse]()

    async def send(event: v1.StreamGenerateResponse) -> None:
        sent.append(event)

    take = Veil(made_map(), note(ears)).sender(send)
    events = [v1.StreamGenerateResponse(start=v1.StreamStart(id="id-1"))]
    left = ANSWER + " [EMAIL_ADDR"
    while left:
        size = rng.randint(1, 9)
        events.append(v1.StreamGenerateResponse(delta=v1.StreamDelta(text=left[:size])))
        left = left[size:]
    events.append(v1.StreamGenerateResponse(end=v1.StreamEnd(finish_reason=v1.FINISH_REASON_STOP)))
    for event in events:
        await take(event.SerializeToString() if serialised else event)
    assert sent[0] == events[0]
    assert sent[-1] == events[-1]
    assembler = MessageAssembler()
    for event in sent[1:-1]:
        assembler.add(event.delta)
    told = f"{ANSWER} [EMAIL_ADDR".replace("[EMAIL_ADDRESS_1]", ANN)
    assert assembler.message().parts[0].text == told
    # What is noted is what the vendor gave, redacted.
    ((_, _, what, text, cut),) = ears.payloads
    assert (what, cut) == ("answer", False)
    assert text == f"{ANSWER} [EMAIL_ADDR".replace("536-22-1234", "[US_SSN]")


async def test_without_masks_the_veil_only_notes() -> None:
    ears, given = Ears(), response("plain")
    assert Veil(MaskMap(), note(ears)).restored(given) is given
    assert ears.payloads == [("id-1", "internal", "answer", "plain", False)]


@pytest.mark.parametrize("limit", range(1, 60))
def test_no_end_of_personal_data_stands_at_the_border(limit: int) -> None:
    ears = Ears()
    noted = note(ears, limit)
    request = v1.EmbedRequest(inputs=[f"write to {ANN} or to {ANN}"])
    noted.request(request)
    ((_, _, _, text, cut),) = ears.payloads
    whole = "write to [EMAIL_ADDRESS] or to [EMAIL_ADDRESS]\n"
    assert whole.startswith(text)
    assert cut == (text != whole)
    assert len(text) <= limit + len("[EMAIL_ADDRESS]")


def test_a_private_key_across_the_border_is_not_begun() -> None:
    ears = Ears()
    key = "-----BEGIN PRIVATE KEY-----\n" + "A1b2" * 2000 + "\n-----END PRIVATE KEY-----"
    note(ears, 100).request(v1.EmbedRequest(inputs=[f"here: {key}", "more"]))
    ((_, _, _, text, cut),) = ears.payloads
    assert text == "here: [API_KEY]"
    assert cut


def test_every_kind_of_part_is_noted() -> None:
    ears = Ears()
    request = v1.GenerateRequest()
    parts = [
        v1.Part(text="say"),
        v1.Part(image=v1.Image(data=b"secret bytes", media_type="image/png")),
        v1.Part(reasoning=v1.Reasoning(text="hm")),
        v1.Part(tool_call=v1.ToolCall(name="f", arguments_json="{}")),
        v1.Part(tool_result=v1.ToolResult(parts=[v1.Part(text="done")])),
        v1.Part(audio=v1.Audio(transcript="heard")),
    ]
    request.messages.add(role=v1.ROLE_USER, parts=parts)
    note(ears).request(request)
    assert ears.payloads[0][3].splitlines() == [
        "user: say",
        "user: (image)",
        "user: hm",
        "user: f({})",
        "user: done",
        "user: heard",
    ]
