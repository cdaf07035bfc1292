"""Events that are written without being made."""

import pytest

from trunkline import v1
from trunkline_server.engine.events import delta_event


@pytest.mark.parametrize("size", [0, 1, 2, 120, 125, 126, 127, 128, 16_380, 16_384, 3_000_000])
def test_a_delta_is_written_as_protobuf_writes_its_event(size: int) -> None:
    delta = v1.StreamDelta(part_index=3, text="x" * size)
    expected = v1.StreamGenerateResponse(delta=delta)
    assert delta_event(delta) == expected.SerializeToString()


def test_deltas_of_every_kind() -> None:
    call = v1.ToolCallDelta(id="1", name="find", arguments_json="{}")
    for delta in (
        v1.StreamDelta(),
        v1.StreamDelta(part_index=1, reasoning="so"),
        v1.StreamDelta(part_index=2, tool_call=call),
        v1.StreamDelta(part=v1.Part(text="whole")),
    ):
        assert v1.StreamGenerateResponse.FromString(delta_event(delta)).delta == delta
        assert v1.StreamGenerateResponse.FromString(delta_event(delta)).HasField("delta")
