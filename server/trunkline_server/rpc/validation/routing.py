"""Requests for decisions, and for lists."""

from trunkline import v1
from trunkline_server.errors import invalid, invalid_fields
from trunkline_server.rpc.validation.common import Found, add, check_routing_fields

_MAX_BATCH = 10_000
_MAX_PAGE = 1000


def validate_route(request: v1.RouteRequest) -> None:
    """Raises as validate_generate does."""
    found: Found = []
    if request.input_tokens < 0:
        add(found, "input_tokens", "must not be negative")
    if request.max_output_tokens < 0:
        add(found, "max_output_tokens", "must not be negative")
    check_routing_fields(found, request)
    if found:
        raise invalid_fields(found)


def validate_batch_route(request: v1.BatchRouteRequest) -> None:
    """Raises unless the batch has an allowed size; its requests are checked one by one."""
    count = len(request.requests)
    if not 1 <= count <= _MAX_BATCH:
        raise invalid("requests", f"must hold 1 to {_MAX_BATCH} requests, not {count}")


def validate_list_models(request: v1.ListModelsRequest) -> None:
    """Raises as validate_generate does."""
    found: Found = []
    if not 0 <= request.page_size <= _MAX_PAGE:
        add(found, "page_size", f"must be from 0 to {_MAX_PAGE}")
    for i, name in enumerate(request.capabilities):
        if not name:
            add(found, f"capabilities[{i}]", "must not be empty")
    if found:
        raise invalid_fields(found)
