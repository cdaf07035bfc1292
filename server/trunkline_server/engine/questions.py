"""Route requests that were asked before, and what is the same each time they are asked.

What a request says, the routing query it makes and the deployments that pass its static filters
are functions of its bytes, its caller and the table. Which of them are chosen is decided anew at
each call; only the answer for a choice, which is the same for the same choice while nothing is
wrong with any candidate, is kept ready to be sent.
"""

from typing import NamedTuple, TypeAlias

from trunkline import v1
from trunkline_server.engine.bounds import keep_within
from trunkline_server.engine.needs import route_query
from trunkline_server.engine.ports import Bounds, Caller, Privacy
from trunkline_server.engine.table import Table
from trunkline_server.routing.explain import repeats
from trunkline_server.routing.lru import Lru
from trunkline_server.routing.pools import Pool, pool_of
from trunkline_server.routing.query import Constraint, Query

# Pools of more candidates are looked up each time, because what is kept would hold them in memory.
# Their answers are long, and seldom the same.
_CANDIDATES = 8
# So many answers of a question are kept, of so many bytes.
_ANSWERS = 8
_BYTES = 4_096


class Terms(NamedTuple):
    """What a query rests on beside the request and its caller."""

    table: Table
    privacy: Privacy | None
    constraints: tuple[Constraint, ...]
    bounds: Bounds | None


class Question:
    """One caller's Route request, parsed and validated.

    `settle` brings it up to date with what its answers rest on; the rest holds until the next.
    """

    __slots__ = (
        "_caller",
        "_terms",
        "answers",
        "in_full",
        "pool",
        "query",
        "request",
        "slots",
    )

    query: Query
    # None: it is to be looked up.
    pool: Pool | None
    # The candidates whose health an answer depends on besides its targets; none if it is never
    # the same again.
    slots: tuple[int, ...]

    def __init__(self, request: v1.RouteRequest, caller: Caller) -> None:
        self.request = request
        # Whether the answer tells all that is known of each candidate.
        self.in_full = request.HasField("routing") and request.routing.explain
        # Serialised, by the slots of the targets they name.
        self.answers: dict[tuple[int, ...], bytes] = {}
        self._caller = caller
        self._terms: Terms | None = None

    def settle(self, terms: Terms) -> None:
        """Makes query and pool, unless they were made on the same terms. Raises TrunklineError."""
        if self._terms == terms:
            return
        # Should it raise, what was made before does not count.
        self._terms = None
        query = query_of(self.request, self._caller, terms)
        pool = pool_of(terms.table.snapshot, query)
        small = len(pool.members) <= _CANDIDATES
        self.query = query
        self.pool = pool if small else None
        again = small and not self.in_full and repeats(pool, query)
        self.slots = tuple(pool.slots) if again else ()
        self.answers = {}
        self._terms = terms

    def keep(self, targets: tuple[int, ...], answer: bytes) -> None:
        """Keeps an answer for the next time that these targets are chosen."""
        if len(self.answers) < _ANSWERS and len(answer) <= _BYTES:
            self.answers[targets] = answer


# By bytes and caller.
Questions: TypeAlias = Lru[tuple[bytes, Caller], Question]


def query_of(request: v1.RouteRequest, caller: Caller, terms: Terms) -> Query:
    """What a request asks of the routing core. Raises TrunklineError for what is beyond the
    caller's bounds."""
    query = route_query(request, terms.table.permitted_models(caller, request.model))
    query.constraints = terms.constraints
    if terms.privacy is not None:
        query.constraints += terms.privacy.constraints(request.context)
    if terms.bounds is not None:
        keep_within(terms.bounds, request, query)
    return query
