"""What a package may import that brings a dialect of its own, and nothing else of the server.

A package registers a codec by an entry point of the group `trunkline.dialects`; the README says
how. What stands here, and the contract's messages in `trunkline.v1`, keep their names and their
meaning while API_VERSION stays the same; additions do not change it. A codec says by
`api_version = 1` which one it was written for.
"""

from trunkline_server.errors import TrunklineError, UpstreamError, Violation, invalid
from trunkline_server.providers.codec import (
    Codec,
    CodecTarget,
    ImageCodec,
    RerankCodec,
    SpeechCodec,
    SpeechDecoder,
    StreamDecoder,
    TokenCountCodec,
    TranscriptionCodec,
    WireRequest,
)
from trunkline_server.providers.common import reason_for_status, retry_after_seconds, shorten
from trunkline_server.providers.exchange import LAST_REPLY, Ask, Exchange, ExchangeCodec

__all__ = [
    "API_VERSION",
    "LAST_REPLY",
    "Ask",
    "Codec",
    "CodecTarget",
    "Exchange",
    "ExchangeCodec",
    "ImageCodec",
    "RerankCodec",
    "SpeechCodec",
    "SpeechDecoder",
    "StreamDecoder",
    "TokenCountCodec",
    "TranscriptionCodec",
    "TrunklineError",
    "UpstreamError",
    "Violation",
    "WireRequest",
    "invalid",
    "reason_for_status",
    "retry_after_seconds",
    "shorten",
]

API_VERSION = 1
