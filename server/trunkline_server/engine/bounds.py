"""What a caller has paid for, held against what it asks for."""

from collections.abc import Iterable

from trunkline import v1
from trunkline_server.engine.ports import Bounds
from trunkline_server.engine.requests import Request
from trunkline_server.routing.query import Query
from trunkline_server.routing.snapshot import Deployment

_Request = Request | v1.RouteRequest

_ASKS_FOR_CACHE = frozenset({v1.CACHE_MODE_REFRESH, v1.CACHE_MODE_ONLY_IF_CACHED})


def keep_within(bounds: Bounds, request: _Request, query: Query) -> None:
    """Raises TrunklineError for a request beyond its caller's bounds.

    A generation that does not say how much it may write is made to ask for no more than the
    caller may have.
    """
    used = _used(request, query)
    if query.output_tokens or not isinstance(request, v1.GenerateRequest):
        bounds.check(used, query.input_tokens, query.output_tokens)
    else:
        # An answer has at least one token.
        bounds.check(used, query.input_tokens, 1)
        most = bounds.room(query.input_tokens)
        if most:
            request.config.max_output_tokens = query.output_tokens = most


def fit(bounds: Bounds, request: _Request, query: Query, targets: Iterable[Deployment]) -> None:
    """Asks for no more than every target can write, where `keep_within` said how much."""
    most = bounds.room(query.input_tokens)
    if most and isinstance(request, v1.GenerateRequest):
        config = request.config
        if config.max_output_tokens == most:
            known = [row.max_output_tokens for row in targets if row.max_output_tokens]
            config.max_output_tokens = min([most, *known])


def _used(request: _Request, query: Query) -> frozenset[str]:
    """What a request needs, and the router's own features that it asks for by name."""
    used = set(query.capabilities)
    if query.kind not in {"chat", ""}:
        used.add(query.kind)
    if query.stream:
        used.add("streaming")
    if request.HasField("routing") and request.routing.hedge:
        used.add("hedge")
    if isinstance(request, v1.GenerateRequest | v1.EmbedRequest) and (
        request.cache.mode in _ASKS_FOR_CACHE
    ):
        used.add("cache")
    return frozenset(used)
