"""What happens to failures that are the router's own."""

import structlog

from trunkline_server.telemetry.metrics import Metrics


class DefectLog:
    """Logs and counts them; an rpc.inference.Defects."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._log = structlog.get_logger()

    def defect(self, operation: str, request_id: str, error: Exception) -> None:
        """Logs the exception with its trace, under the id that the caller was told."""
        self._metrics.defects.labels(operation).inc()
        self._log.error(
            "internal error", operation=operation, request_id=request_id, exc_info=error
        )

    def shed(self, operation: str) -> None:
        """Counts the call. No line each: under overload the log must not make it worse."""
        self._metrics.shed.labels(operation).inc()
