"""What the face needs of the rest of the router."""

from collections.abc import Sequence
from typing import Any, Protocol

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.openai_face.context import HttpContext


class Inference(Protocol):
    """The methods of trunkline.v1.InferenceService, as gRPC calls them: a serialised request, and
    a context, here always an HttpContext, that is told of the answer's pieces and of failure."""

    async def generate(self, raw: bytes, context: Any, /) -> bytes:
        """Generate; a serialised GenerateResponse."""
        ...

    async def stream_generate(self, raw: bytes, context: Any, /) -> None:
        """StreamGenerate; its events are written to the context."""
        ...

    async def embed(self, raw: bytes, context: Any, /) -> bytes:
        """Embed; a serialised EmbedResponse."""
        ...


class Models(Protocol):
    """The public models."""

    async def models(self, context: HttpContext, /) -> Sequence[v1.PublicModel]:
        """Those that the caller may use, by name. Raises TrunklineError."""
        ...


class Door(Protocol):
    """Hears of calls that end before a method sees them."""

    def refused(self, operation: str, caller: str, error: TrunklineError) -> None:
        """A call was turned away; `caller` is empty while unknown."""
        ...

    def defect(self, operation: str, request_id: str, error: Exception) -> None:
        """An exception nobody expected ended a call."""
        ...
