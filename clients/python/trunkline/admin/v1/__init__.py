"""Every message, enum and enum value of package trunkline.admin.v1. Generated; do not edit."""

from trunkline.admin.v1.usage_event_pb2 import (
    USAGE_EVENT_KIND_ATTEMPT,
    USAGE_EVENT_KIND_CALL,
    USAGE_EVENT_KIND_UNSPECIFIED,
    USAGE_OUTCOME_CANCELLED,
    USAGE_OUTCOME_FAILED,
    USAGE_OUTCOME_SUCCEEDED,
    USAGE_OUTCOME_UNSPECIFIED,
    UsageEvent,
    UsageEventKind,
    UsageOutcome,
)

__all__ = [
    "USAGE_EVENT_KIND_ATTEMPT",
    "USAGE_EVENT_KIND_CALL",
    "USAGE_EVENT_KIND_UNSPECIFIED",
    "USAGE_OUTCOME_CANCELLED",
    "USAGE_OUTCOME_FAILED",
    "USAGE_OUTCOME_SUCCEEDED",
    "USAGE_OUTCOME_UNSPECIFIED",
    "UsageEvent",
    "UsageEventKind",
    "UsageOutcome",
]
