"""The requests that calls are made of, and what they have in common."""

from typing import TypeAlias

from trunkline import v1

# Those with a cache policy.
Cacheable: TypeAlias = v1.GenerateRequest | v1.EmbedRequest
# Of a recording, the message that says what to make of it.
Request: TypeAlias = (
    Cacheable
    | v1.GenerateImageRequest
    | v1.TranscribeSpec
    | v1.SynthesizeRequest
    | v1.RerankRequest
    | v1.CountTokensRequest
)
