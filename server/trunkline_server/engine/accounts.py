"""The books of a call: opened when it comes, closed however it ends."""

import asyncio
from contextlib import suppress

from trunkline import v1
from trunkline_server.engine.attempt import Services
from trunkline_server.engine.call import Call, total_cost, total_tokens
from trunkline_server.errors import TrunklineError


class Accounts:
    """Opens and closes the books of calls, each once."""

    __slots__ = ("_services",)

    def __init__(self, services: Services) -> None:
        self._services = services

    def begin(self, call: Call) -> None:
        """A call has come."""
        services = self._services
        services.budget.deposit()
        services.observer.call_started(call)

    async def close(self, call: Call) -> None:
        """Closes the books of a call that succeeded, and waits until they are safe."""
        self.end(call)
        if self._services.books is not None:
            await self._services.books.committed()

    async def end_failed(self, call: Call, failure: BaseException) -> None:
        """Closes the books of a call that failed, and waits as for an answer where its caller is
        told what was tried and paid."""
        self.end(call, failure)
        books = self._services.books
        if books is not None and call.attempts and isinstance(failure, TrunklineError):
            # Books that cannot be written now hold it in memory; the failure is told as it is.
            with suppress(TrunklineError):
                await books.committed()

    def fail(self, call: Call, failure: BaseException) -> None:
        """Closes the books of a call that failed, unless its own work does."""
        if not call.working:
            self.end(call, failure)

    def end(self, call: Call, failure: BaseException | None = None) -> None:
        """Closes the books of a call, and tells how it ended."""
        services = self._services
        call.ended = services.clock.monotonic()
        if call.cost is None and call.attempts:
            call.cost = total_cost(call.attempts)
        if call.grant is not None:
            cost = 0 if call.cost is None else call.cost.total
            call.grant.settle(total_tokens(call.attempts), cost)
        if failure is None or isinstance(failure, TrunklineError):
            error = failure
        elif isinstance(failure, asyncio.CancelledError):
            late = call.ended >= call.deadline
            reason = v1.ERROR_REASON_TIMEOUT if late else v1.ERROR_REASON_CANCELLED
            error = TrunklineError(reason, "the caller's deadline passed" if late else "cancelled")
        else:
            error = TrunklineError(v1.ERROR_REASON_INTERNAL, "internal error")
        services.observer.call_ended(call, error)
