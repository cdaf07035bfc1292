"""What the engine asks of others: who calls, who watches, and what else holds for a call."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from trunkline import v1
from trunkline_server.engine.requests import Request
from trunkline_server.errors import TrunklineError
from trunkline_server.routing.query import Constraint
from trunkline_server.routing.snapshot import Deployment
from trunkline_server.routing.warm import Warmth
from trunkline_server.upstream.http import HttpRequest

if TYPE_CHECKING:
    from trunkline_server.engine.call import Call
    from trunkline_server.engine.table import Table
    from trunkline_server.routing.plan import Plan

# What calls do, as they are counted and booked.
OPERATIONS = (
    *("generate", "stream_generate", "embed", "generate_image", "transcribe", "synthesize"),
    *("rerank", "count_tokens"),
)
# Those whose answers are streamed.
STREAMED = frozenset({"stream_generate", "synthesize"})

# Answers that may hold text of the caller's.
MediaT = TypeVar(
    "MediaT", bound=v1.GenerateImageResponse | v1.TranscribeResponse | v1.RerankResponse
)

Headers = tuple[tuple[str, str], ...]
# A streamed call's way out: events, or events that are serialised already.
Send = Callable[[v1.StreamGenerateResponse], Awaitable[None]]
SendBytes = Callable[[bytes], Awaitable[None]]
# What a request to a provider passes through last: it is signed there, as a whole. Raises
# UpstreamError with AUTHENTICATION, and `sent` False, while there is nothing to send it under.
Sign = Callable[[HttpRequest], HttpRequest]


class Caller(Protocol):
    """Who makes a call. Hashable; equal callers have equal rights."""

    @property
    def name(self) -> str:
        """The name for logs and messages; never the key itself."""
        ...

    @property
    def account(self) -> str:
        """The name for limits, budgets and the ledger, which no two callers share."""
        ...

    @property
    def group(self) -> str:
        """The name for metrics, of which there are few: many callers may share it."""
        ...

    def permits(self, model: str) -> bool:
        """Whether the caller may use a model, named as in GenerateRequest.model."""
        ...


class Bounds(Protocol):
    """What a call must keep to because of what its caller has paid for."""

    def room(self, input_tokens: int) -> int:
        """The most that an answer to a prompt of so many tokens may be asked for; 0: no bound."""
        ...

    def permits(self, feature: str) -> bool:
        """Whether a feature, such as `hedge` or `cache`, may be used unasked."""
        ...

    def check(self, used: frozenset[str], input_tokens: int, output_tokens: int) -> None:
        """Raises TrunklineError, naming the rule, for a request beyond them; `used` are the
        capabilities that it needs and the features that it asks for."""
        ...


class Observer(Protocol):
    """Watches calls. Called synchronously on the request path: must not block or raise."""

    def call_started(self, call: "Call") -> None:
        """A call has been admitted. May replace call.traceparent by its own span's."""
        ...

    def attempt_ended(
        self, call: "Call", target: Deployment, attempt: v1.Attempt, error: TrunklineError | None
    ) -> None:
        """One upstream call is over; `attempt` is complete."""
        ...

    def call_ended(self, call: "Call", error: TrunklineError | None) -> None:
        """A call is over; `call` is complete."""
        ...


class Ticket(Protocol):
    """What one attempt holds of the limits and budgets of its provider."""

    def settle(self, tokens: int, cost_nanos: int) -> None:
        """The attempt is over, having consumed this. Never blocks, never raises."""
        ...


class Grant(Protocol):
    """What a call holds of limits and budgets."""

    def asks(self, target: Deployment) -> bool:
        """Whether an attempt there must be asked for: where its provider has limits or budgets,
        and where it may exceed what the call has reserved."""
        ...

    async def attempt(self, target: Deployment) -> Ticket | None:
        """Asks for one attempt; its ticket, if its provider has limits or budgets.

        Raises TrunklineError if there is no room: then nothing may be sent there.
        """
        ...

    def settle(self, tokens: int, cost_nanos: int) -> None:
        """The call is over, having consumed this. Never blocks, never raises."""
        ...


class Admission(Protocol):
    """Limits and budgets."""

    @property
    def active(self) -> bool:
        """Whether there are any; if not, nobody is to be asked."""
        ...

    async def admit(self, call: "Call", plan: "Plan") -> Grant:
        """Reserves the most that one attempt of a call may consume, and adds the time that it
        waited for that to `call.queued`. Raises TrunklineError."""
        ...


class Credential(Protocol):
    """What a provider's requests carry in their headers, its credentials among them.

    Read on the request path: nothing here waits or raises.
    """

    @property
    def headers(self) -> Headers:
        """The headers of the next request."""
        ...

    @property
    def sign(self) -> Sign | None:
        """What signs each request, bound when a table is built; None: headers say it all."""
        ...

    def refused(self, headers: Headers) -> Headers | None:
        """Those under which a request that was refused under `headers` may be repeated, once;
        None if there are no others."""
        ...

    def redacted(self, message: str, headers: Headers) -> str:
        """A message without any credential: neither those of `headers`, under which a request
        was sent, nor others in use. Some vendors quote the key."""
        ...


class Books(Protocol):
    """Where calls are accounted for before their answers leave."""

    def admit(self) -> None:
        """Raises SERVICE_UNAVAILABLE while calls could not be accounted for."""
        ...

    async def committed(self) -> None:
        """Returns when what observers wrote of the calls so far is safe; raises as `admit`."""
        ...


class Veil(Protocol):
    """What stands between the vendor and the caller of a call, on the way back."""

    def restored_media(self, response: MediaT) -> MediaT:
        """As `restored`, of an answer that was not kept."""
        ...

    def restored(self, response: v1.GenerateResponse | bytes) -> v1.GenerateResponse:
        """The answer as the caller gets it; the given one, as the vendor gave it or as the
        cache kept it, is not changed."""
        ...

    def sender(self, send: Send) -> Callable[[v1.StreamGenerateResponse | bytes], Awaitable[None]]:
        """What takes a stream's events as the vendor gave them or the cache kept them, and
        sends them on."""
        ...


class Treatment(Protocol):
    """How one call's data is to be treated."""

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """Where the call may go."""
        ...

    @property
    def may_cache(self) -> bool:
        """Whether its answer may come from the cache, and be kept there."""
        ...

    @property
    def may_store_text(self) -> bool:
        """Whether anything that may hold its text may be kept, such as a vendor's message."""
        ...

    @property
    def masked(self) -> Request | None:
        """What vendors and the cache see in place of the request; None: the request itself."""
        ...

    @property
    def veil(self) -> Veil | None:
        """What gives the answer back; None: it is given as it is."""
        ...


class Privacy(Protocol):
    """Data classification, and masking."""

    def treat(self, request: Request, call_id: str) -> Treatment | None:
        """How a call is treated; None if that takes time, see `examine`. Raises
        TrunklineError."""
        ...

    async def examine(self, request: Request, call_id: str) -> Treatment:
        """As `treat`, for calls that take time. Raises TrunklineError."""
        ...

    def constraints(self, context: v1.CallContext) -> tuple[Constraint, ...]:
        """Where a call with this context may go, as far as that tells. Raises
        TrunklineError."""
        ...


class Flight(Protocol):
    """A generation that waits: for the cache, for an identical call's work, or for its own.

    `work` carries the call out and closes its books. It runs in a task of its own, goes on for
    others when the call that brought it goes away, and may run after that call is over.
    """

    async def answer(
        self, work: Callable[[], Awaitable[v1.GenerateResponse]]
    ) -> v1.GenerateResponse | bytes:
        """The response of the call's own work, or a serialised one that came from elsewhere, of
        which the call has been told. Raises TrunklineError."""
        ...


class StreamFlight(Protocol):
    """A streamed generation, likewise."""

    async def relay(
        self,
        work: Callable[[Send], Awaitable[None]],
        send: SendBytes,
        close: Callable[[], Awaitable[None]],
    ) -> None:
        """Sends all events. `close` closes the books of a call whose answer came from
        elsewhere, before its last event is sent. Raises TrunklineError."""
        ...


class EmbedFlight(Protocol):
    """An embedding, likewise. `work` is given the request with the inputs that are missing, and
    may be run a second time."""

    async def answer(
        self, work: Callable[[v1.EmbedRequest], Awaitable[v1.EmbedResponse]]
    ) -> v1.EmbedResponse | bytes:
        """As Flight.answer."""
        ...


class AnswerCache(Protocol):
    """The cache of answers. What it has at once is a serialised response, of which the call has
    been told; None means that it has no part in the call. Raises CACHE_MISS, and as
    `Snapshot.resolve` does."""

    def generate(
        self, call: "Call", request: v1.GenerateRequest, table: "Table"
    ) -> bytes | Flight | None:
        """Looks for a generation in one piece."""
        ...

    def stream(
        self, call: "Call", request: v1.GenerateRequest, table: "Table"
    ) -> StreamFlight | None:
        """Looks for a streamed one."""
        ...

    def embed(
        self, call: "Call", request: v1.EmbedRequest, table: "Table"
    ) -> bytes | EmbedFlight | None:
        """Looks for vectors."""
        ...


class Affinity(Protocol):
    """Which deployments have the beginning of a prompt in their vendor's cache."""

    def warmth(self, call: "Call", request: v1.GenerateRequest) -> Warmth | None:
        """What is known of this one; None for what is too short, or new."""
        ...

    def answered(self, call: "Call", deployment: str) -> None:
        """A deployment has answered, and so has read the prompt."""
        ...


class NullObserver:
    """Watches nothing."""

    def call_started(self, call: "Call") -> None:
        pass

    def attempt_ended(
        self, call: "Call", target: Deployment, attempt: v1.Attempt, error: TrunklineError | None
    ) -> None:
        pass

    def call_ended(self, call: "Call", error: TrunklineError | None) -> None:
        pass
