"""In turn.

The turn lives with the health, one for each pool of a route: queries that may use different
members must not take each other's turns, or a member could be passed over for ever. It is
the place in the route after the one last chosen, so the neighbour of an unavailable member
gets its own turn and no second one.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from trunkline_server.routing.draws import Case
from trunkline_server.routing.pools import Pool
from trunkline_server.routing.snapshot import Deployment, Route
from trunkline_server.routing.strategies.base import Direct


class RoundRobin(Direct):
    fixed = True

    def counts(self, _route: Route, /) -> Mapping[str, float]:
        return {}

    def pick(self, ready: Pool, case: Case, /) -> list[Deployment]:
        members = ready.members
        count = len(members)
        turn = bisect_left(ready.positions, case.health.turn(ready.key)) % count
        picks: list[Deployment] = []
        for place in range(turn, turn + count):
            row = members[place % count]
            if row.slot not in case.unfit:
                if not picks:
                    chosen = place % count
                picks.append(row)
                if len(picks) == case.want:
                    break
            else:
                case.probes -= 1
                if not case.probes:
                    return picks
        if picks and case.take_turn:
            case.health.set_turn(ready.key, ready.positions[chosen] + 1)
        return picks

    def scores(self, members: Sequence[Deployment], case: Case, /) -> list[float]:
        return [1.0] * len(members)
