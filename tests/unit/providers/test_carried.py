"""What is told of a dialect is what its codec does, for every field of the contract."""

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor

from trunkline import v1
from trunkline_server.providers.carried import ROUTER_FIELDS, carried
from trunkline_server.providers.carried_probes import embed_probes, generate_probes
from trunkline_server.providers.codec import CodecTarget
from trunkline_server.providers.dialects import DIALECTS

# What dialects must know that write other bodies for other models.
TARGETS = {
    "bedrock_invoke": CodecTarget("model", 4096, {"body": "titan"}),
    "replicate": CodecTarget("meta/llama", 4096),
}

# Fields that say of others what they are, and are probed with them.
BESIDE = {
    "messages.parts.signature.dialect",
    "messages.parts.vendor_item.dialect",
    "messages.parts.vendor_item.type",
    "messages.sources.id",
    "messages.sources.title",
    "messages.sources.snippet",
    "messages.sources.published",
    "messages.citations.part_index",
    "messages.citations.start",
    "messages.citations.end",
    "messages.citations.source_indexes",
}


def leaves(message: Descriptor, prefix: str = "", seen: tuple[str, ...] = ()) -> Iterator[str]:
    """The fields that hold values, as paths; messages of google are values."""
    for field in message.fields:
        path = f"{prefix}{field.name}"
        kind = field.message_type
        if (
            kind is None
            or not kind.fields
            or kind.full_name in seen
            or kind.full_name.startswith("google.")
            or kind.GetOptions().map_entry
            or path in ROUTER_FIELDS
        ):
            yield path
        else:
            yield from leaves(kind, f"{path}.", (*seen, kind.full_name))


@pytest.mark.parametrize("message", [v1.GenerateRequest, v1.EmbedRequest])
def test_every_field_has_a_probe(message: type[v1.GenerateRequest | v1.EmbedRequest]) -> None:
    probes = generate_probes("x") if message is v1.GenerateRequest else embed_probes()
    probed = {probe.field for probe in probes}
    assert set(leaves(message.DESCRIPTOR)) - BESIDE == probed | set(ROUTER_FIELDS)


def test_probes_differ_in_one_field() -> None:
    for probe in generate_probes("x"):
        assert probe.requests[0] != probe.requests[1], probe.field
    for other in embed_probes():
        assert other.requests[0] != other.requests[1], other.field


def target(dialect: str) -> CodecTarget:
    return TARGETS.get(dialect) or CodecTarget("model", 4096)


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_every_dialect_carries_what_no_vendor_lacks(dialect: str) -> None:
    told = {
        row.field: row
        for row in carried(DIALECTS[dialect], target(dialect))
        if row.message == "GenerateRequest"
    }
    for field in ("messages.parts.text", "config.max_output_tokens"):
        assert told[field].support == v1.FIELD_SUPPORT_CARRIED, (field, told[field].detail)
        assert told[field].vendor_fields
    for row in told.values():
        assert row.support != v1.FIELD_SUPPORT_UNSPECIFIED
        assert bool(row.vendor_fields) == (row.support == v1.FIELD_SUPPORT_CARRIED)
        assert bool(row.detail) == (row.support == v1.FIELD_SUPPORT_REFUSED)


def test_known_places() -> None:
    """By the vendors' own documents."""
    places = {
        dialect: {
            row.field: list(row.vendor_fields)
            for row in carried(DIALECTS[dialect], target(dialect))
            if row.message == "GenerateRequest"
        }
        for dialect in ("openai", "anthropic", "gemini")
    }
    assert places["openai"]["messages.parts.image.uri"] == ["messages[].content[].image_url.url"]
    assert places["anthropic"]["messages.parts.tool_call.id"] == ["messages[].content[].id"]
    assert places["anthropic"]["config.stop"] == ["stop_sequences[]"]
    assert places["gemini"]["config.top_k"] == ["generationConfig.topK"]
