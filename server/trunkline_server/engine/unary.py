"""The attempt loop of unary calls: retry, fall back and hedge within the caller's deadline."""

import asyncio
from typing import Generic

from trunkline_server.engine.attempt import Attempt, Services, http_request, pause, timed_out
from trunkline_server.engine.call import Call, Course
from trunkline_server.engine.journey import Journey
from trunkline_server.engine.operations import Operation, RequestT, ResponseT
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
                if hedge_delay is not None:
                    return await self._race(step.target, hedge_delay)
                return step.target, await self._attempt(step.target, hedged=False)
            except TrunklineError as error:
                step = self._journey.after(step.target, error)
            hedge_delay = None

    async def _attempt(self, target: Deployment, *, hedged: bool) -> ResponseT:
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

    async def _race(self, target: Deployment, delay: float) -> tuple[Deployment, ResponseT]:
        """Runs an attempt and, when it is slow, a second one beside it; the first answer wins."""
        racers = {asyncio.create_task(self._attempt(target, hedged=False)): target}
        try:
            done, _ = await asyncio.wait(racers, timeout=delay)
            if not done:
                hedge = self._journey.itinerary.hedge(self._services.clock.monotonic())
                if hedge is not None:
                    second = asyncio.create_task(self._attempt(hedge.target, hedged=True))
                    racers[second] = hedge.target
            while True:
                done, _ = await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    where = racers.pop(task)
                    error = task.exception()
                    if error is None:
                        return where, task.result()
                    if not racers or not isinstance(error, UpstreamError):
                        raise error
                    self._journey.failed(where, error)
        finally:
            for task in racers:
                task.cancel()
            await asyncio.gather(*racers, return_exceptions=True)
