"""What a call and its attempts ask of limits and budgets: an engine.ports.Admission."""

from collections.abc import Awaitable
from dataclasses import replace

from trunkline import v1
from trunkline_server.clock import Clock
from trunkline_server.engine.call import Call
from trunkline_server.engine.requests import Request
from trunkline_server.governance.identity.principal import Principal
from trunkline_server.governance.quotas.governor import Governor, Grant
from trunkline_server.governance.quotas.rules import Demand
from trunkline_server.routing.plan import Plan
from trunkline_server.routing.snapshot import Deployment

# What an answer may come to where neither the request nor the model's data bounds it. Tokens.
_UNBOUNDED_OUTPUT = 32_768
# The most tokens that a character of text can be: one for each of its bytes.
_MOST_BYTES = 4
# The most that vendors count for a picture, a minute of sound or a short file.
_MEDIA_TOKENS = 3_000
_MEDIA = frozenset({"image", "audio", "file"})


class Doorkeeper:
    """Admits calls by a governor."""

    def __init__(self, governor: Governor, clock: Clock) -> None:
        self.governor = governor
        self._clock = clock

    async def admit(self, call: Call, plan: Plan) -> "CallGrant":
        """As engine.ports.Admission: reserves what the dearest target of the plan may take."""
        bound = _Bound(call, self._clock.wall())
        demand = _demand(call, plan)
        for target in plan.targets:
            tokens, cost = bound.at(target)
            demand.tokens = max(demand.tokens, tokens)
            demand.cost = max(demand.cost, cost)
        grant = await self.queued(call, self.governor.admit(demand))
        return CallGrant(self, call, demand, bound, grant)

    async def queued(self, call: Call, outcome: Grant | Awaitable[Grant]) -> Grant:
        """The grant, once it is there; the wait for it counts as the call's."""
        if isinstance(outcome, Grant):
            return outcome
        began = self._clock.monotonic()
        try:
            return await outcome
        finally:
            call.queued += self._clock.monotonic() - began


class _Bound:
    """The most that one attempt of a call may take, by target."""

    __slots__ = ("_at", "_plain", "_read", "_units", "_written")

    def __init__(self, call: Call, at: float) -> None:
        request = call.request
        self._at = at
        # What is not told by tokens alone.
        self._units = call.units
        if self._units is not None:
            return
        self._read, self._plain = _most_read(request)
        # None: as much as the model gives.
        self._written: int | None = 0
        if isinstance(request, v1.GenerateRequest):
            self._written = request.config.max_output_tokens or None

    def at(self, target: Deployment) -> tuple[int, int]:
        """Tokens, and nanos of a US dollar."""
        if self._units is not None:
            usage = self._units.consumed(target.price, self._at)
            cost = 0 if target.price is None else target.price.most(usage, self._at)
            return usage.input_tokens + usage.output_tokens, cost
        written = self._written
        if written is None:
            written = target.max_output_tokens or target.context_tokens or _UNBOUNDED_OUTPUT
        price, read = target.price, self._read
        cost = 0 if price is None else price.worst(read, written, self._at, plain=self._plain)
        return read + written, cost


class CallGrant:
    """What a call holds, and what its attempts add to it; an engine.ports.Grant.

    A call reserves what one attempt may take. Before a further attempt that may exceed that,
    because a vendor has charged for an earlier one or one is still under way, it reserves what
    is lacking: so what it has reserved is at every moment the most that it can come to.
    """

    __slots__ = ("_asking", "_bound", "_call", "_demand", "_door", "_governor", "_held", "_most")

    def __init__(
        self,
        door: Doorkeeper,
        call: Call,
        demand: Demand,
        bound: _Bound,
        grant: Grant,
    ) -> None:
        self._door = door
        self._governor = door.governor
        self._call = call
        self._demand = demand
        self._bound = bound
        # Each grant with the tokens and the nanos that it reserves.
        self._held = [(grant, demand.tokens, demand.cost)]
        # What any one attempt may take.
        self._most = (demand.tokens, demand.cost)
        self._asking = 0  # Attempts that are being admitted.

    def asks(self, target: Deployment) -> bool:
        """As engine.ports.Grant."""
        governor = self._governor
        if governor.asks_attempts:
            return True
        if not self._call.attempts and not self._asking:
            return False
        return governor.grows and any(self._lacking(target))

    async def attempt(self, target: Deployment) -> Grant | None:
        """As engine.ports.Grant."""
        tokens, cost = self._lacking(target)
        self._asking += 1
        try:
            if (tokens or cost) and self._governor.grows:
                await self._reserve_more(tokens, cost)
            if not self._governor.asks_attempts:
                return None
            tokens, cost = self._bound.at(target)
            wish = replace(self._demand, provider=target.provider, tokens=tokens, cost=cost)
            return await self._door.queued(self._call, self._governor.admit_attempt(wish))
        finally:
            self._asking -= 1

    def settle(self, tokens: int, cost_nanos: int) -> None:
        """As engine.ports.Grant: each grant takes what it reserved for, the last one the rest."""
        *firsts, (last, _, _) = self._held
        for grant, most_tokens, most_cost in firsts:
            grant.settle(min(tokens, most_tokens), min(cost_nanos, most_cost))
            tokens, cost_nanos = max(tokens - most_tokens, 0), max(cost_nanos - most_cost, 0)
        last.settle(tokens, cost_nanos)

    async def _reserve_more(self, tokens: int, cost: int) -> None:
        wish = replace(self._demand, tokens=tokens, cost=cost)
        grant = await self._door.queued(self._call, self._governor.admit_more(wish))
        self._held.append((grant, tokens, cost))

    def _lacking(self, target: Deployment) -> tuple[int, int]:
        """What one more attempt may take beyond what is reserved: tokens, and nanos."""
        tokens, cost = self._bound.at(target)
        most_tokens, most_cost = self._most
        tokens += self._asking * most_tokens
        cost += self._asking * most_cost
        for record in self._call.attempts:
            if record.outcome:
                usage = record.usage
                tokens += usage.input_tokens + usage.output_tokens
                cost += record.cost.total
            else:
                tokens += most_tokens
                cost += most_cost
        for _, held_tokens, held_cost in self._held:
            tokens -= held_tokens
            cost -= held_cost
        return max(tokens, 0), max(cost, 0)


def _demand(call: Call, plan: Plan) -> Demand:
    """Who asks, and for which model."""
    caller, request = call.caller, call.request
    demand = Demand(
        key=caller.account,
        user=call.user_id,
        service=request.context.agent_id,
        model=request.model or plan.targets[0].model,
        deadline=call.deadline,
    )
    if isinstance(caller, Principal):
        demand.tenant, demand.project = caller.tenant, caller.project
        demand.user = caller.user or demand.user
        demand.service = caller.service or demand.service
    return demand


def _most_read(request: Request) -> tuple[int, bool]:
    """A bound on the tokens of a request: no vocabulary has a token of less than one byte. And
    whether all of them are plain input: neither sound nor to be kept by the vendor."""
    if isinstance(request, v1.EmbedRequest):
        return sum(map(_most_of, request.inputs)), True
    if not isinstance(request, v1.GenerateRequest):
        raise AssertionError("such a request says in its call's units what it reads")  # noqa: TRY004 # A defect.
    tokens, plain = 0, True
    for message in request.messages:
        for part in message.parts:
            text = part.text
            if text:
                tokens += _most_of(text)
            elif not part.HasField("text"):
                most, media = _most_besides(part)
                tokens += most
                plain = plain and not media
            if part.cache_breakpoint:
                plain = False
    if request.tools:
        tokens += sum(tool.ByteSize() for tool in request.tools)
    if request.HasField("response_format"):
        tokens += request.response_format.ByteSize()
    return tokens, plain


def _most_besides(part: v1.Part) -> tuple[int, bool]:
    """A bound on the tokens of a part that is no text, and whether there is media in it."""
    is_media = part.WhichOneof("kind") in _MEDIA
    media = sum(each.WhichOneof("kind") in _MEDIA for each in part.tool_result.parts)
    tokens = _MEDIA_TOKENS if is_media else part.ByteSize()
    return tokens + _MEDIA_TOKENS * media, is_media or media > 0


def _most_of(text: str) -> int:
    # Each text comes with a few tokens that mark its role and its ends.
    return len(text) * (1 if text.isascii() else _MOST_BYTES) + 16
