"""The attempt loop of unary calls: retry, fall back and hedge within the caller's deadline."""

import asyncio
from typing import Generic

from trunkline_server.engine.attempt import Attempt, Services, http_request, pause, timed_out
from trunkline_server.engine.call import Call, Course
from trunkline_server.engine.journey import Journey
from trunkline_server.engine.operations import Operation, RequestT, ResponseT
from trunkline_server.engine.race import race
from trunkline_server.errors import TrunklineError, UpstreamError
from trunkline_server.routing.snapshot import Deployment


class UnaryLoop(Generic[RequestT, ResponseT]):
    """Carries one unary call along its plan."""

    def __init__(
        self,
        services: Services,
        course: Course,
        operation: Operation[RequestT, ResponseT],
        request: RequestT,
        call: Call,
    ) -> None:
        self._services = services
        self._table = course.table
        self._operation = operation
        self._request = request
        self._call = call
        self._time_limit = course.plan.route.attempts.attempt_timeout
        self._journey = Journey(services, course, call)

    async def run(self, hedge: bool | None) -> tuple[Deployment, ResponseT]:
        """The first answer, and the deployment that gave it.

        `hedge` is the request's word on hedging; None leaves it to the route. Raises
        TrunklineError when every attempt that was allowed has failed.
        """
        step = self._journey.first()
        hedge_delay = self._journey.itinerary.hedge_delay(hedge)
        while True:
            await pause(step.delay)
            try:
                if hedge_delay is None:
                    return step.target, await self._attempt(step.target, False)
                # An answer that came too late is booked like any other, and dropped.
                return await race(
                    self._attempt, step.target, hedge_delay, self._journey, lambda _: None
                )
            except TrunklineError as error:
                step = self._journey.after(step.target, error)
            hedge_delay = None

    async def _attempt(self, target: Deployment, hedged: bool) -> ResponseT:
        binding = self._table.binding(target)
        codec = binding.endpoint.codec
        wire = self._operation.encode(codec, self._request, binding.target)
        attempt = Attempt(self._services, self._table, self._call, target, hedged=hedged)
        limit = self._call.deadline - attempt.started
        if self._time_limit:
            limit = min(limit, self._time_limit)
        try:
            async with asyncio.timeout(limit):
                reply = await self._services.http.fetch(
                    http_request(binding.endpoint, wire, self._call)
                )
            if not 200 <= reply.status < 300:
                raise codec.decode_error(reply.status, reply.headers, reply.body)
            response = self._operation.decode(codec, reply.body, self._request)
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
        attempt.succeed(reply.status, response.usage)
        return response
