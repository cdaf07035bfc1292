"""What answers cite and what vendors' tools did, masked and given back."""

import json
import random

import pytest

from trunkline import v1
from trunkline.assemble import MessageAssembler
from trunkline_server.privacy.detect import Detector
from trunkline_server.privacy.mask import MaskMap
from trunkline_server.privacy.request import mask_request, texts_of
from trunkline_server.privacy.stream import StreamRestorer

ANN = "ann.of.green.gables@example.org"
MASKED = "[EMAIL_ADDRESS_1] wrote. So did [EMAIL_ADDRESS_2], to [EMAIL_ADDRESS_1]. [NAME_9]"
BOB = "b@x.org"


def made_map(*, as_json: bool = False) -> MaskMap:
    map_ = MaskMap(text_is_json=as_json)
    map_.placeholder("EMAIL_ADDRESS", ANN)
    map_.placeholder("EMAIL_ADDRESS", BOB)
    return map_


def cited(words: str, text: str = MASKED) -> v1.Citation:
    start = text.index(words)
    return v1.Citation(part_index=1, start=start, end=start + len(words), source_indexes=[0])


def answer() -> v1.Message:
    words = ("wrote", "[EMAIL_ADDRESS_2], to", MASKED, "[NAME_9]", "So did [EMAIL")
    message = v1.Message(role=v1.ROLE_ASSISTANT, citations=[cited(each) for each in words])
    message.parts.add(reasoning=v1.Reasoning(text="[EMAIL_ADDRESS_1]!"))
    message.parts.add(text=MASKED)
    message.sources.add(uri="https://example.com/[EMAIL_ADDRESS_1]", snippet="[EMAIL_ADDRESS_2]")
    message.citations.add(part_index=1, quote="of [EMAIL_ADDRESS_1]")
    return message


def check(message: v1.Message) -> None:
    text = message.parts[1].text
    assert text == f"{ANN} wrote. So did {BOB}, to {ANN}. [NAME_9]"
    told = [text[citation.start : citation.end] for citation in message.citations]
    assert told == ["wrote", f"{BOB}, to", text, "[NAME_9]", f"So did {BOB}", ""]
    assert message.citations[5].quote == f"of {ANN}"
    assert message.sources[0].snippet == BOB
    # Where something is, is not what it says.
    assert message.sources[0].uri == "https://example.com/[EMAIL_ADDRESS_1]"


@pytest.mark.parametrize("as_json", [False, True])
def test_citations_cite_the_same_words_once_names_are_given_back(as_json: bool) -> None:
    message = answer()
    made_map(as_json=as_json).restore_message(message)
    check(message)


@pytest.mark.parametrize("seed", range(20))
def test_streamed_citations_too(seed: int) -> None:
    rng = random.Random(seed)
    whole = answer()
    deltas = [v1.StreamDelta(part_index=0, reasoning=whole.parts[0].reasoning.text)]
    left = MASKED
    while left:
        size = rng.randint(1, 9)
        deltas.append(v1.StreamDelta(part_index=1, text=left[:size]))
        left = left[size:]
    deltas += [v1.StreamDelta(source=source) for source in whole.sources]
    deltas += [v1.StreamDelta(citation=citation) for citation in whole.citations]
    restorer, assembler = StreamRestorer(made_map()), MessageAssembler()
    before = [delta.SerializeToString() for delta in deltas]
    for delta in deltas:
        for restored in restorer.feed(delta):
            assembler.add(restored)
    for restored in restorer.finish():
        assembler.add(restored)
    check(assembler.message())
    assert [delta.SerializeToString() for delta in deltas] == before


def item(document: object) -> v1.GenerateRequest:
    kept = v1.VendorItem(dialect="openai_responses", type="x", json=json.dumps(document))
    message = v1.Message(role=v1.ROLE_ASSISTANT, parts=[v1.Part(vendor_item=kept)])
    return v1.GenerateRequest(messages=[message])


def masked(request: v1.GenerateRequest) -> tuple[v1.GenerateRequest, MaskMap]:
    made, map_ = mask_request(request, Detector().spans, texts_of(request))
    assert made is None or isinstance(made, v1.GenerateRequest)
    return made or request, map_


def test_texts_in_vendors_items_are_masked_and_what_only_the_vendor_reads_is_not() -> None:
    secret = f"id of {ANN}"
    document = {
        "type": "x",
        "id": secret,
        "action": {"query": f"who is {ANN}", "sources": [{"title": ANN, "n": 7}]},
        "encrypted_content": secret,
        "result": "iVBORw0KGgo" + "A1" * 2000,
        "said": 'he said "id": "' + BOB + '"',
    }
    request = item(document)
    made, map_ = masked(request)
    told = json.loads(made.messages[0].parts[0].vendor_item.json)
    assert told == {
        **document,
        "action": {
            "query": "who is [EMAIL_ADDRESS_1]",
            "sources": [{"title": "[EMAIL_ADDRESS_1]", "n": 7}],
        },
        "said": 'he said "id": "[EMAIL_ADDRESS_2]"',
    }
    map_.restore_message(made.messages[0])
    assert json.loads(made.messages[0].parts[0].vendor_item.json) == document


def test_a_vendors_item_without_personal_data_is_returned_letter_by_letter() -> None:
    request = item({"type": "x"})
    request.messages[0].parts[0].vendor_item.json = '{"type" : "x", "q":\t"caf\\u00e9", "n":1.50}'
    made, map_ = masked(request)
    assert made is request
    assert len(map_) == 0


def test_deep_items_are_no_trouble() -> None:
    deep = "[" * 900 + f'"{ANN}"' + "]" * 900
    request = item({})
    request.messages[0].parts[0].vendor_item.json = f'{{"a": {deep}}}'
    made, _ = masked(request)
    assert ANN not in made.messages[0].parts[0].vendor_item.json


def test_the_options_of_a_vendors_tool_are_masked() -> None:
    tool = v1.BuiltinTool(type="web_search", options_json=json.dumps({"near": ANN}))
    request = v1.GenerateRequest(tools=[v1.Tool(builtin=tool)])
    made, _ = masked(request)
    assert made.tools[0].builtin.options_json == '{"near": "[EMAIL_ADDRESS_1]"}'
    assert made.tools[0].builtin.type == "web_search"
