"""What the server needs of a dialect, and what a dialect is given for one call."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from trunkline_server.simulator import tokens
from trunkline_server.simulator.answer import Answer, Prompt, compose
from trunkline_server.simulator.models import Model, find, honest_name
from trunkline_server.simulator.prompt_cache import CacheUse, PromptCache
from trunkline_server.simulator.sample import SchemaError
from trunkline_server.simulator.script import Script
from trunkline_server.simulator.vendor_error import VendorError


@dataclass(frozen=True, slots=True)
class Quota:
    """Where an account stands with its limit of requests; `reset` in seconds from now."""

    limit: int
    remaining: int
    reset: float


@dataclass(slots=True)
class Call:
    """One call that runs a model. `name` is the model's, without a script."""

    dialect: str
    operation: str
    name: str
    script: Script
    body: dict[str, Any]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    key: str
    number: int
    created: int
    memory: PromptCache
    filtered: bool = False

    @property
    def model(self) -> Model:
        return find(self.name)

    @property
    def honest_name(self) -> str:
        return honest_name(self.name)

    def answer(self, prompt: Prompt, cache: CacheUse) -> Answer:
        """The answer to the prompt. Raises VendorError for a prompt that is too long and for
        a malformed schema."""
        room = self.model.context_tokens
        if prompt.input_tokens > room:
            raise VendorError("context", sizes=(prompt.input_tokens, room))
        try:
            return compose(prompt, cache, length=self.script.tokens, filtered=self.filtered)
        except SchemaError as error:
            raise VendorError("invalid", f"Invalid schema: {error}", param="schema") from None

    def pieces(self, text: str) -> Iterable[str]:
        """The text as it is streamed."""
        return tokens.pieces(text, self.script.chunk_tokens)


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer in `body`, or a streamed one in `pieces`; each piece is one event."""

    body: bytes = b""
    pieces: Iterable[bytes] | None = None
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """A failure in the vendor's own shape."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path of a dialect. `run` raises VendorError, and so does `verify`, which is given the
    request and its body as they came, for vendors whose callers sign them."""

    path: str
    run: Callable[[Call], Reply]
    verify: Callable[[web.BaseRequest, bytes], None] | None = None


class Dialect(Protocol):
    """One vendor's way to speak."""

    name: str

    @property
    def endpoints(self) -> Iterable[Endpoint]:
        """The POST paths that run a model."""
        ...

    @property
    def listings(self) -> Iterable[str]:
        """The GET paths that tell of models; one that ends in {model} tells of that one."""
        ...

    def listing(self, model: Model | None) -> bytes:
        """The body that tells of one model, or of all."""
        ...

    def key(self, request: web.BaseRequest) -> str:
        """The caller's API key. Raises VendorError when it is missing or invalid."""
        ...

    def target(self, request: web.Request, body: Mapping[str, Any]) -> tuple[str, str]:
        """The model, with its script's suffix, and the operation. Raises VendorError."""
        ...

    def headers(self, number: int, quota: Quota | None) -> dict[str, str]:
        """What every answer to call number `number` carries."""
        ...

    def error(self, refusal: VendorError, request: web.BaseRequest) -> ErrorReply:
        """The answer to a refused call."""
        ...

    def stream_error(self, refusal: VendorError) -> bytes:
        """The event that reports a failure inside a stream."""
        ...

    def stream_garbage(self) -> bytes:
        """An event whose data nobody can make sense of."""
        ...
