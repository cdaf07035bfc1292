"""What the checks of all requests have in common.

What only a dialect, the routing table or a policy can judge is judged there. Descriptions never
quote the request; paths hold its indices but none of its texts.
"""

import math
import re

from google.protobuf.duration_pb2 import Duration

from trunkline import v1
from trunkline_server.engine.requests import Request
from trunkline_server.errors import Violation, invalid_fields

_MAX_VIOLATIONS = 20
_MAX_MODEL = 256
_MAX_REQUEST_ID = 128
_MAX_IMAGE_BYTES = 20 * 1024 * 1024
_MAX_LABELS = 32
_MAX_LABEL_KEY = 64
_MAX_LABEL_VALUE = 256
_NANOS = 1_000_000_000

_PRINTABLE_ASCII = re.compile(r"[ -~]*").fullmatch
_IMAGE_URI = re.compile(r"(?:https|gs|data):", re.IGNORECASE).match

_IMAGE_DETAILS = frozenset(v1.ImageDetail.values())
_STRATEGIES = frozenset(v1.Strategy.values())
_CACHE_MODES = frozenset(v1.CacheMode.values())

Found = list[Violation]


def add(found: Found, field: str, description: str) -> None:
    """Notes a violation; the one that fills the list ends the search."""
    found.append(Violation(field, description))
    if len(found) == _MAX_VIOLATIONS:
        raise invalid_fields(found)


def check_image(found: Found, path: str, image: v1.Image) -> None:
    check_source(found, path, image)
    # The whole message is measured first: reading `data` copies it.
    if image.ByteSize() > _MAX_IMAGE_BYTES and len(image.data) > _MAX_IMAGE_BYTES:
        add(found, f"{path}.data", f"must not exceed {_MAX_IMAGE_BYTES} bytes")
    if image.uri and not _IMAGE_URI(image.uri):
        add(found, f"{path}.uri", "must be an https, gs or data URI")
    if image.detail not in _IMAGE_DETAILS:
        add(found, f"{path}.detail", "is not a known detail")


def check_source(found: Found, path: str, media: v1.Image | v1.Audio | v1.File) -> None:
    source = media.WhichOneof("source")
    if source is None:
        add(found, path, "must say where its content is")
    elif source == "data":
        if not media.media_type:
            add(found, f"{path}.media_type", "is required with data")
    elif not getattr(media, source):
        add(found, f"{path}.{source}", "must not be empty")


def check_cache(found: Found, cache: v1.CachePolicy) -> None:
    if cache.mode not in _CACHE_MODES:
        add(found, "cache.mode", "is not a known mode")
    if cache.HasField("ttl") and not _is_duration(cache.ttl):
        add(found, "cache.ttl", "must be a duration that is not negative")


def check_request_id(found: Found, request_id: str) -> None:
    if request_id and (len(request_id) > _MAX_REQUEST_ID or not _PRINTABLE_ASCII(request_id)):
        add(found, "request_id", f"must be printable ASCII of at most {_MAX_REQUEST_ID} characters")


def check_routing_fields(found: Found, request: Request | v1.RouteRequest) -> None:
    """The fields that every request has."""
    if len(request.model) > _MAX_MODEL:
        add(found, "model", f"must have at most {_MAX_MODEL} characters")
    has = request.HasField
    if has("requirements"):
        _check_requirements(found, request.requirements)
    if has("routing"):
        _check_routing(found, request.routing)
    if has("context"):
        _check_labels(found, request.context)


def _check_requirements(found: Found, requirements: v1.Requirements) -> None:
    ceiling = requirements.max_cost_per_token
    if not 0 <= ceiling < math.inf:
        add(found, "requirements.max_cost_per_token", "must be a number that is not negative")
    if requirements.max_latency_ms < 0:
        add(found, "requirements.max_latency_ms", "must not be negative")
    if not 0 <= requirements.min_quality <= 1:
        add(found, "requirements.min_quality", "must be from 0 to 1")


def _check_routing(found: Found, routing: v1.RoutingOptions) -> None:
    if routing.strategy not in _STRATEGIES:
        add(found, "routing.strategy", "is not a known strategy")
    allowed = set(routing.allowed_providers)
    for i, provider in enumerate(routing.denied_providers):
        if provider in allowed:
            add(found, f"routing.denied_providers[{i}]", "is among the allowed providers too")


def _check_labels(found: Found, context: v1.CallContext) -> None:
    labels = context.labels
    if len(labels) > _MAX_LABELS:
        add(found, "context.labels", f"must hold at most {_MAX_LABELS} labels, not {len(labels)}")
    if any(len(key) > _MAX_LABEL_KEY for key in labels):
        add(found, "context.labels", f"keys must have at most {_MAX_LABEL_KEY} characters")
    if any(len(value) > _MAX_LABEL_VALUE for value in labels.values()):
        add(found, "context.labels", f"values must have at most {_MAX_LABEL_VALUE} characters")


def _is_duration(duration: Duration) -> bool:
    """Not negative, and well-formed as google.protobuf.Duration says."""
    return duration.seconds >= 0 and 0 <= duration.nanos < _NANOS
