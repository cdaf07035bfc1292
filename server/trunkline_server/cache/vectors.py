"""Kept embeddings: one vector each, and the answer made of many."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trunkline import v1
from trunkline_server.cache import wire

# Bytes of the objects around the stored bytes.
_OBJECTS = 330


@dataclass(frozen=True, slots=True)
class Vector:
    """One text's vector: `frame` as it stands in an EmbedResponse, `head` who made it.

    Vectors of one `space` may be compared: it is the model's name as the vendor reported it,
    or else the deployment's. `saved` is its part of what its call cost, in nanos of a US
    dollar, by length of text.
    """

    head: bytes
    frame: bytes
    space: str
    saved: int
    unpriced: bool

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return _OBJECTS + len(self.head) + len(self.frame)

    @classmethod
    def kept(cls, head: bytes, frame: bytes, cost: v1.Cost) -> "Vector":
        """A vector from its stored parts. Raises ValueError if the head is no message."""
        return cls(
            head, frame, _space(v1.EmbedResponse.FromString(head)), cost.total, cost.unpriced
        )


def vectors_of(response: v1.EmbedResponse, texts: Sequence[str]) -> Iterator[Vector]:
    """The vectors of an answer to `texts`. Their parts of its cost sum up to the whole."""
    head = wire.embed_head(response)
    space = _space(response)
    cost = response.cost
    length = sum(map(len, texts)) or 1
    before = spent = 0
    for text, embedding in zip(texts, response.embeddings, strict=True):
        before += len(text)
        upto = cost.total * before // length
        frame = wire.vector_frame(embedding)
        yield Vector(head, frame, space, upto - spent, cost.unpriced)
        spent = upto


def _space(response: v1.EmbedResponse) -> str:
    return sys.intern(response.model or response.deployment)
