"""What carrying out any call has in common: planned, reserved, its answer completed."""

from trunkline import v1
from trunkline_server.engine.accounts import Accounts
from trunkline_server.engine.attempt import Services
from trunkline_server.engine.bounds import fit, keep_within
from trunkline_server.engine.call import Call, Course, total_cost
from trunkline_server.engine.needs import unmet_needs
from trunkline_server.engine.requests import Request
from trunkline_server.engine.table import Table
from trunkline_server.errors import TrunklineError
from trunkline_server.routing.explain import decide_into, explain
from trunkline_server.routing.plan import plan
from trunkline_server.routing.query import Query
from trunkline_server.routing.snapshot import Deployment

Answered = (
    v1.GenerateResponse
    | v1.EmbedResponse
    | v1.GenerateImageResponse
    | v1.TranscribeResponse
    | v1.RerankResponse
)


class Planned:
    """Plans calls by `table`, the one in force, with which their work begins and ends."""

    def __init__(self, services: Services, accounts: Accounts, table: Table) -> None:
        self._services = services
        self._accounts = accounts
        self.table = table

    def bounded(self, call: Call, query: Query) -> Query:
        """The query with what access rules ask of it; raises for what its caller may not have.

        Before anything is looked up: cached answers are as much bounded as new ones.
        """
        query.constraints = call.constraints
        if call.bounds is not None:
            keep_within(call.bounds, call.request, query)
        return query

    def plan_for(self, call: Call, query: Query) -> Course:
        """The course of a call, which it keeps. Raises TrunklineError when nothing may serve it."""
        table = self.table
        now = self._services.clock.monotonic()
        try:
            chosen = plan(table.snapshot, query, table.health, now, self._services.rng)
        except TrunklineError as error:
            if error.reason != v1.ERROR_REASON_NO_ELIGIBLE_DEPLOYMENT:
                raise
            members = table.snapshot.resolve(query.model).members
            raise unmet_needs(call.request, query, members) or error from None
        if call.bounds is not None:
            fit(call.bounds, call.request, query, chosen.targets)
        call.course = Course(table, chosen)
        return call.course

    async def _reserve(self, call: Call, course: Course) -> None:
        admission = self._services.admission
        if admission is not None and admission.active:
            call.grant = await admission.admit(call, course.plan)

    def _decide(self, call: Call, course: Course, target: Deployment, made: v1.Decision) -> None:
        """Writes the decision for a target into an empty message, which the call keeps."""
        table = course.table
        decide_into(made, table.snapshot, course.plan, target)
        if call.request.HasField("routing") and call.request.routing.explain:
            now = self._services.clock.monotonic()
            candidates = explain(table.snapshot, table.health, now, course.plan, in_full=True)
            made.candidates.extend(candidates)
        call.decision = made

    def _complete(
        self,
        call: Call,
        course: Course,
        target: Deployment,
        response: Answered,
    ) -> None:
        call.model = response.model
        call.usage = response.usage
        call.cost = total_cost(call.attempts)
        response.id = call.id
        response.provider = target.provider
        response.deployment = target.name
        response.cost.CopyFrom(call.cost)
        self._decide(call, course, target, response.decision)
        response.attempts.extend(call.attempts)
        self._time(call, response.timing)

    def _time(self, call: Call, timing: v1.Timing) -> None:
        timing.total_us = round((self._services.clock.monotonic() - call.started) * 1e6)
        timing.upstream_us = round(call.upstream_seconds * 1e6)
        if call.queued:
            timing.queue_us = round(call.queued * 1e6)
        if call.first_token is not None:
            timing.first_token_us = round((call.first_token - call.started) * 1e6)


def hedge_wish(call: Call, request: Request) -> bool | None:
    """The request's word on hedging, as far as its caller may have one; None: it says nothing."""
    if call.bounds is not None and not call.bounds.permits("hedge"):
        return False
    if not request.HasField("routing"):
        return None
    return request.routing.hedge if request.routing.HasField("hedge") else None
