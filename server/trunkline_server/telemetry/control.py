"""What the control plane and its store go through, as metrics and log lines."""

import structlog

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.telemetry.logs import loggable
from trunkline_server.telemetry.metrics import REASONS, Metrics


class StoreLog:
    """Tells of the store of resources."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._log = structlog.get_logger()
        self._note = ""

    def notes(self) -> dict[str, str]:
        """What /readyz says of it; nothing while all is well."""
        return {"store": self._note} if self._note else {}

    def heard(self, error: TrunklineError | None) -> None:
        """The store went away, or came back."""
        self._metrics.store_away.set(int(error is not None))
        if error is not None:
            self._note = f"away, changes wait: {error.message}"
            self._log.error("store is away; the configuration in force stays", error=error.message)
        elif self._note:
            self._note = ""
            self._log.warning("store is back")

    def started_from_copy(self, path: str, revision: int, problem: str) -> None:
        """What the store holds could not be had, so that the router starts from a copy."""
        self._log.error(
            "started from the last good copy of the store",
            copy=path,
            revision=revision,
            problem=problem,
        )

    def copy_failed(self, path: str, problem: str) -> None:
        """The copy on disk could not be written."""
        self._log.error("the store's copy could not be written", copy=path, problem=problem)


class ControlLog:
    """Counts and logs calls to the control plane that fail; an rpc.admin.ports.Watch."""

    def __init__(self, metrics: Metrics) -> None:
        self._refused = metrics.admin_refused
        self._defects = metrics.defects
        self._log = structlog.get_logger()

    def refused(self, operation: str, caller: str, error: TrunklineError) -> None:
        """A call failed as its caller was told."""
        self._refused.labels(operation, REASONS[error.reason]).inc()
        self._log.info(
            "admin call refused",
            method=operation,
            caller=caller,
            code=error.code.name,
            reason=v1.ErrorReason.Name(error.reason),
            error=loggable(error),
        )

    def defect(self, operation: str, request_id: str, error: Exception) -> None:
        """An exception nobody expected ended a call."""
        self._defects.labels(operation).inc()
        self._log.error(
            "internal error", operation=operation, request_id=request_id, exc_info=error
        )
