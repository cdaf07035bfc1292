"""Requests from their bytes: parsed, checked, and remembered where they are asked again."""

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from trunkline import v1
from trunkline_server.engine.call import Call
from trunkline_server.engine.questions import Question, Questions
from trunkline_server.errors import invalid
from trunkline_server.governance.identity.principal import Principal
from trunkline_server.routing.lru import Lru
from trunkline_server.rpc.validation import validate_generate, validate_route

RequestT = TypeVar("RequestT", bound=Message)

# So many Route requests are remembered, of at most so many bytes. With their answers one takes
# some 10 KB, and at most 50.
_QUESTIONS = 1_024
_REMEMBERED_BYTES = 1_024

# The bytes that parsed requests may take, of calls that the cache answered, and the largest one.
_KNOWN_REQUESTS = 8 * 2**20
_KNOWN_REQUEST = 16 * 2**10


class Requests:
    """Reads requests. `max_bytes` may be changed while it does."""

    def __init__(self, max_bytes: int, *, cached: bool) -> None:
        """`cached`: answers may come from a cache, and with them requests that are known."""
        self.max_bytes = max_bytes
        self._questions = Questions(_QUESTIONS)
        self._answered: Lru[bytes, v1.GenerateRequest] | None = (
            Lru(_KNOWN_REQUESTS) if cached else None
        )

    @property
    def shares(self) -> bool:
        """Whether what it gives may be given again to others, and is not to be changed."""
        return self._answered is not None

    def question(self, raw: bytes, caller: Principal) -> Question:
        """A caller's Route request. Raises INVALID_REQUEST."""
        return self._questions.get((raw, caller)) or self._ask(raw, caller)

    def known(self, raw: bytes) -> v1.GenerateRequest | None:
        """The request of these bytes, if it was answered from the cache before."""
        known = self._answered
        if known is None or len(raw) > _KNOWN_REQUEST or len(raw) > self.max_bytes:
            return None
        return known.get(raw)

    def generation(self, raw: bytes) -> v1.GenerateRequest:
        """A request to generate, checked. Raises INVALID_REQUEST."""
        request = self.parse(v1.GenerateRequest, raw)
        validate_generate(request)
        return request

    def parse(self, kind: type[RequestT], raw: bytes) -> RequestT:
        """A request of a kind, not checked yet. Raises INVALID_REQUEST."""
        if len(raw) > self.max_bytes:
            raise invalid("(request)", f"is {len(raw)} bytes; at most {self.max_bytes} are allowed")
        request = kind()
        try:
            request.ParseFromString(raw)
        except DecodeError:
            raise invalid("(request)", f"is not a {kind.DESCRIPTOR.full_name}") from None
        return request

    def remember(self, call: Call) -> None:
        """Keeps the parsed request of a call. One that its caller's bounds may change is not
        kept."""
        known, raw = self._answered, call.raw
        if (
            known is not None
            and raw
            and len(raw) <= _KNOWN_REQUEST
            and call.bounds is None
            and isinstance(call.request, v1.GenerateRequest)
        ):
            # Parsed, it takes a few times as much.
            known.put(raw, call.request, 4 * len(raw) + 512)

    def _ask(self, raw: bytes, caller: Principal) -> Question:
        """A Route request that is not known yet."""
        request = self.parse(v1.RouteRequest, raw)
        validate_route(request)
        question = Question(request, caller)
        if len(raw) <= _REMEMBERED_BYTES:
            self._questions.put((raw, caller), question)
        return question
