"""The attempt loop of unary calls: retry, fall back and hedge within the caller's deadline."""

from functools import partial
from typing import Generic

from trunkline_server.engine.attempt import (
    Attempt,
    Services,
    admitted,
    http_request,
    pause,
    timed_out,
)
from trunkline_server.engine.call import Call, Course
from trunkline_server.engine.exchange import conversation_of
from trunkline_server.engine.journey import Journey
from trunkline_server.engine.limit import within
from trunkline_server.engine.operations import Operation, RequestT, ResponseT
from trunkline_server.engine.race import race
from trunkline_server.engine.table import Binding
from trunkline_server.errors import TrunklineError, UpstreamError
from trunkline_server.providers.codec import WireRequest
from trunkline_server.routing.snapshot import Deployment
from trunkline_server.upstream.http import HttpResponse


class UnaryLoop(Generic[RequestT, ResponseT]):
    """Carries one unary call along its plan."""

    __slots__ = ("_call", "_course", "_operation", "_policy", "_request", "_services")

    def __init__(
        self,
        services: Services,
        course: Course,
        operation: Operation[RequestT, ResponseT],
        request: RequestT,
        call: Call,
    ) -> None:
        self._services = services
        self._course = course
        self._operation = operation
        self._request = request
        self._call = call
        self._policy = course.plan.route.attempts

    async def run(self, hedge: bool | None) -> tuple[Deployment, ResponseT]:
        """The first answer, and the deployment that gave it.

        `hedge` is the request's word on hedging; None leaves it to the route. Raises
        TrunklineError when every attempt that was allowed has failed.
        """
        target = self._course.plan.targets[0]
        # Most calls need none: their first attempt succeeds, and is not raced.
        journey: Journey | None = None
        if hedge or (hedge is None and self._policy.hedge is not None):
            journey = self._journey()
            delay = journey.itinerary.hedge_delay(hedge)
            if delay is not None:
                try:
                    # An answer that came too late is booked like any other, and dropped.
                    return await race(self._attempt, target, delay, journey, lambda _: None)
                except TrunklineError as error:
                    target = await self._next(journey, target, error)
        while True:
            try:
                return target, await self._attempt(target, False)
            except TrunklineError as error:
                journey = journey or self._journey()
                target = await self._next(journey, target, error)

    def _journey(self) -> Journey:
        return Journey(self._services, self._course, self._call)

    async def _next(
        self, journey: Journey, target: Deployment, error: TrunklineError
    ) -> Deployment:
        """Waits for the next attempt's turn; gives its target."""
        step = journey.after(target, error)
        await pause(step.delay)
        return step.target

    async def _attempt(self, target: Deployment, hedged: bool) -> ResponseT:
        services, call, table = self._services, self._call, self._course.table
        binding = table.binding(target)
        endpoint = binding.endpoint
        codec = endpoint.codec
        wire = self._operation.encode(codec, self._request, binding.target)
        ticket = None if call.grant is None else await admitted(call, target)
        attempt = Attempt(
            services, table, call, target, endpoint.credential, hedged=hedged, ticket=ticket
        )
        limit = call.deadline - attempt.started
        if self._policy.attempt_timeout:
            limit = min(limit, self._policy.attempt_timeout)
        try:
            more = None if services.cache is None else partial(self._left, attempt)
            if endpoint.following is None:
                request = http_request(endpoint, wire, call, attempt.headers)
                reply = await within(limit, services.http.fetch(request), more)
            else:
                reply = await within(limit, self._converse(attempt, binding, wire, limit), more)
            attempt.answered(reply.headers, endpoint.gateway)
            if not 200 <= reply.status < 300:
                refusal = codec.decode_error(reply.status, reply.headers, reply.body)
                if not attempt.repeats(refusal):
                    raise refusal
                reply = await self._repeat(attempt, binding, wire, limit)
            response, usage = self._operation.decode(codec, reply.body, self._request, target)
        except UpstreamError as error:
            attempt.fail(error)
            raise
        except TimeoutError:
            late = timed_out("answer", limit)
            attempt.abandoned()
            attempt.fail(late)
            raise late from None
        except BaseException:
            attempt.abandoned()
            attempt.cancel()
            raise
        attempt.succeed(reply.status, usage)
        return response

    def _left(self, attempt: Attempt) -> float:
        """How much time an attempt has. Those who join a call may have more than it."""
        now = self._services.clock.monotonic()
        left = self._call.deadline - now
        if self._policy.attempt_timeout:
            left = min(left, attempt.started + self._policy.attempt_timeout - now)
        return left

    async def _repeat(
        self, attempt: Attempt, binding: Binding, wire: WireRequest, limit: float
    ) -> HttpResponse:
        """Sends the request again under the attempt's new headers, in the time that is left."""
        services, endpoint = self._services, binding.endpoint
        left = limit - (services.clock.monotonic() - attempt.started)
        if endpoint.following is None:
            request = http_request(endpoint, wire, self._call, attempt.headers)
            reply = await within(left, services.http.fetch(request))
        else:
            reply = await within(left, self._converse(attempt, binding, wire, left))
        attempt.answered(reply.headers, endpoint.gateway)
        if not 200 <= reply.status < 300:
            raise endpoint.codec.decode_error(reply.status, reply.headers, reply.body)
        return reply

    async def _converse(
        self, attempt: Attempt, binding: Binding, wire: WireRequest, seconds: float
    ) -> HttpResponse:
        """The answer of a provider that has to be asked for it again and again."""
        conversation = conversation_of(
            self._services, binding, attempt, self._call, stream=False, seconds=seconds
        )
        return await conversation.fetch(wire)
