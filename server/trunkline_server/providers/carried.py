"""What a codec carries of the contract, found by having it encode.

For each field two small requests are encoded that differ in its value alone. Where the vendor's
requests differ is where the field went; if they are the same, the dialect has no word for it; a
refusal is the dialect's own. So what is told is what happens, whatever the codec and its flags.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.providers.carried_probes import (
    Probe,
    RequestT,
    embed_probes,
    generate_probes,
)
from trunkline_server.providers.codec import Codec, CodecTarget, WireRequest

# Fields that routing, the cache and the books read, and no codec.
ROUTER_FIELDS = (
    "model",
    "requirements",
    "routing",
    "cache",
    "context.agent_id",
    "context.workflow_id",
    "context.labels",
    "request_id",
)


def carried(codec: Codec, target: CodecTarget) -> Iterator[v1.FieldMapping]:
    """What becomes of each field of GenerateRequest and EmbedRequest at a target, in the order of
    the contract."""

    def generate(request: v1.GenerateRequest) -> WireRequest:
        return codec.encode_generate(request, target, stream=False)

    def embed(request: v1.EmbedRequest) -> WireRequest:
        return codec.encode_embed(request, target)

    for probe in generate_probes(codec.dialect):
        yield _judged("GenerateRequest", probe, generate)
    for field in ROUTER_FIELDS:
        yield _for_router("GenerateRequest", field)
    for embedding in embed_probes():
        yield _judged("EmbedRequest", embedding, embed)
    for field in ROUTER_FIELDS:
        yield _for_router("EmbedRequest", field)


def _for_router(message: str, field: str) -> v1.FieldMapping:
    return v1.FieldMapping(message=message, field=field, support=v1.FIELD_SUPPORT_ROUTER)


def _judged(
    message: str, probe: Probe[RequestT], encode: Callable[[RequestT], WireRequest]
) -> v1.FieldMapping:
    mapping = v1.FieldMapping(message=message, field=probe.field)
    try:
        first, second = (_places(encode(request)) for request in probe.requests)
    except TrunklineError as error:
        mapping.support = v1.FIELD_SUPPORT_REFUSED
        mapping.detail = error.message
        return mapping
    differ = sorted(
        place for place in first.keys() | second.keys() if first.get(place) != second.get(place)
    )
    mapping.support = v1.FIELD_SUPPORT_CARRIED if differ else v1.FIELD_SUPPORT_IGNORED
    mapping.vendor_fields.extend(differ)
    return mapping


def _places(request: WireRequest) -> Mapping[str, list[object]]:
    """The values of a vendor's request by where they stand."""
    found: dict[str, list[object]] = {
        "path": [request.path],
        "headers": [request.headers],
    }
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        # A dialect whose requests are no JSON: it is told that it differs, and not where.
        found["body"] = [request.body]
    else:
        _collect(body, "", found)
    return found


def _collect(value: Any, path: str, found: dict[str, list[object]]) -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            _collect(inner, f"{path}.{name}" if path else name, found)
    elif isinstance(value, list):
        for inner in value:
            _collect(inner, f"{path}[]", found)
    else:
        found.setdefault(path, []).append(value)
