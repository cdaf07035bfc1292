"""What a dialect can do beyond chat and embeddings, told by the methods that it has."""

from trunkline import v1
from trunkline_server.providers.codec import (
    OPTIONAL_FACULTIES,
    Codec,
    CodecTarget,
    WireRequest,
    faculties,
)
from trunkline_server.providers.openai_chat import OpenAIChatCodec


class Reranking(OpenAIChatCodec):
    """A dialect with one method pair more."""

    def encode_rerank(self, request: v1.RerankRequest, target: CodecTarget) -> WireRequest:
        return WireRequest("/rerank", request.query.encode())

    def decode_rerank(
        self, body: bytes, request: v1.RerankRequest, into: v1.RerankResponse
    ) -> None:
        into.results.add(index=0)


class Halfway(OpenAIChatCodec):
    """A dialect that can ask but not read the answer."""

    def encode_rerank(self, request: v1.RerankRequest, target: CodecTarget) -> WireRequest:
        return WireRequest("/rerank", b"")


def test_a_dialect_can_do_what_it_has_all_methods_for() -> None:
    own = faculties(OpenAIChatCodec())
    whole: Codec = Reranking()
    half: Codec = Halfway()
    assert faculties(whole) == own | {"rerank"}
    assert faculties(half) == own
    assert own <= OPTIONAL_FACULTIES
