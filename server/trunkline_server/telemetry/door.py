"""What happens before calls reach the engine, and to failures that are the router's own."""

import structlog

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.telemetry.logs import loggable
from trunkline_server.telemetry.metrics import REASONS, Metrics
from trunkline_server.telemetry.tally import Tally


class DoorLog:
    """Counts and logs them; an rpc.inference.FrontDoor."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._log = structlog.get_logger()
        self._decisions = {
            operation: Tally(metrics.decisions.labels(operation))
            for operation in ("route", "batch_route")
        }
        self._refusals: dict[tuple[str, int], Tally] = {}
        metrics.batches.add(self._flush)

    def decided(self, operation: str, count: int) -> None:
        """Counts decisions."""
        self._decisions[operation].total += count

    def refused(self, operation: str, caller: str, error: TrunklineError) -> None:
        """Counts the call, and logs it at level info.

        Under overload it is counted only: a line each would make matters worse.
        """
        key = (operation, error.reason)
        tally = self._refusals.get(key)
        if tally is None:
            tally = Tally(self._metrics.refused.labels(operation, REASONS[error.reason]))
            self._refusals[key] = tally
        tally.total += 1
        if error.reason != v1.ERROR_REASON_OVERLOADED:
            self._log.info(
                "call not admitted",
                operation=operation,
                caller=caller,
                code=error.code.name,
                reason=v1.ErrorReason.Name(error.reason),
                error=loggable(error),
            )

    def defect(self, operation: str, request_id: str, error: Exception) -> None:
        """Logs the exception with its trace, under the id that the caller was told."""
        self._metrics.defects.labels(operation).inc()
        self._log.error(
            "internal error", operation=operation, request_id=request_id, exc_info=error
        )

    def _flush(self) -> None:
        for tally in (*self._decisions.values(), *self._refusals.copy().values()):
            tally.flush()
