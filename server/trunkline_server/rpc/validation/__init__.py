"""The bounds that the contract's comments state, checked by hand."""

from trunkline_server.rpc.validation.embedding import validate_embed, validate_rerank
from trunkline_server.rpc.validation.generation import validate_count_tokens, validate_generate
from trunkline_server.rpc.validation.media import (
    validate_generate_image,
    validate_synthesize,
    validate_transcribe,
)
from trunkline_server.rpc.validation.routing import (
    validate_batch_route,
    validate_list_models,
    validate_route,
)

__all__ = [
    "validate_batch_route",
    "validate_count_tokens",
    "validate_embed",
    "validate_generate",
    "validate_generate_image",
    "validate_list_models",
    "validate_rerank",
    "validate_route",
    "validate_synthesize",
    "validate_transcribe",
]
