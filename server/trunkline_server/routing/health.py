"""What is known of each deployment's health from the calls that ended: the mutable side.

Single-threaded. `now` is monotonic seconds and must not go back. Rows are made when first
written to, so that a table of ten thousand deployments costs what its used ones cost: about
a kilobyte each.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from heapq import heappop, heappush
from math import exp

from trunkline import v1
from trunkline_server.routing.allowance import Allowance
from trunkline_server.routing.breaker import Breaker, BreakerPolicy
from trunkline_server.routing.lru import Lru
from trunkline_server.routing.samples import Peaks, Samples

__all__ = ["BreakerPolicy", "HealthTable"]

# An unmeasured deployment that is already being measured weighs as a slow one, in seconds per
# call in flight, so that a newcomer gets one call at a time until the first one returns.
_UNMEASURED = 60.0

_TURNS = 4_096

_DEFAULT_POLICY = BreakerPolicy()


class _Row:
    """One deployment's health. `home` is the newest table that holds it, at `slot`."""

    __slots__ = (
        "allowance",
        "breaker",
        "calls",
        "cooldown_until",
        "first_token",
        "good",
        "home",
        "latency",
        "quota_until",
        "scheduled",
        "slot",
        "stamp",
    )

    def __init__(self, home: "HealthTable", slot: int) -> None:
        self.home = home
        self.slot = slot
        self.breaker = Breaker()
        self.cooldown_until = 0.0
        # None: its vendor has told nothing of limits.
        self.allowance: Allowance | None = None
        self.quota_until = 0.0
        self.scheduled = False  # Whether an entry of home's agenda names it.
        self.latency: Samples | None = None
        self.first_token: Samples | None = None
        self.calls = 0.0  # Both fade with time since stamp.
        self.good = 0.0
        self.stamp = 0.0

    def until(self) -> float:
        """When pause, lack of quota and open time have all passed."""
        if self.breaker.is_closed:
            return max(self.cooldown_until, self.quota_until)
        return max(self.cooldown_until, self.quota_until, self.breaker.open_until)

    def admits(self, now: float, policy: BreakerPolicy) -> bool:
        """Whether a call may begin."""
        return (
            now >= self.cooldown_until
            and now >= self.quota_until
            and self.breaker.admits(now, policy)
        )

    def count(self, good: float, now: float, seconds: float) -> None:
        kept = exp((self.stamp - now) / seconds)
        self.calls = self.calls * kept + 1.0
        self.good = self.good * kept + good
        self.stamp = now


class HealthTable:
    """The health of every slot.

    Each `begin` is followed by exactly one of `succeed`, `fail` or `neutral` on the same
    table. On reload a new table takes over the rows of the previous one by name; calls begun
    on the previous one still end there and count in the new one.

    `epoch` changes whenever the set of unavailable slots does.
    """

    def __init__(
        self,
        names: Sequence[str],
        policy: BreakerPolicy = _DEFAULT_POLICY,
        previous: "HealthTable | None" = None,
    ) -> None:
        self.policy = policy
        self.epoch = 0
        self._names = tuple(names)
        self._rows: list[_Row | None] = [None] * len(self._names)
        self._busy = array("q", bytes(8 * len(self._names)))  # Calls in flight.
        self._latencies = Peaks(len(self._names))
        self._first_tokens = Peaks(len(self._names))
        self._blocked: set[int] = set()
        self._flawed: set[int] = set()  # Those that ever failed.
        self._told: set[int] = set()  # Those whose vendors told of limits of theirs.
        self._agenda: list[tuple[float, int]] = []  # (when to look again, slot), a heap.
        self._turns: Lru[object, int] = Lru(_TURNS)
        if len(set(self._names)) != len(self._names):
            raise ValueError("two deployments have the same name")
        if previous is not None:
            self._take_over(previous)

    def _take_over(self, previous: "HealthTable") -> None:
        self._turns = previous._turns
        rows = dict(zip(previous._names, previous._rows, strict=True))
        for slot, name in enumerate(self._names):
            row = rows.get(name)
            if row is None:
                continue
            old, old_slot = row.home, row.slot
            row.home, row.slot, row.scheduled = self, slot, False
            self._rows[slot] = row
            self._busy[slot] = old._busy[old_slot]
            self._latencies.copy(slot, old._latencies, old_slot)
            self._first_tokens.copy(slot, old._first_tokens, old_slot)
            if row.allowance is not None:
                self._told.add(slot)
            if old_slot in old._flawed:
                self._flawed.add(slot)
            if old_slot in old._blocked:
                self._blocked.add(slot)
                self._schedule(row)

    # What happened.

    def begin(self, slot: int, now: float) -> None:
        """A call begins: one more in flight; it takes a half-open place."""
        row = self._row(slot)
        row.home._busy[row.slot] += 1
        if not row.breaker.is_closed:
            row.breaker.begin(now)
            row.home._settle(row, now)
        if row.allowance is not None:
            row.allowance.sent()
            row.home._judge(row, row.allowance, now)

    def succeed(
        self, slot: int, now: float, latency: float, first_token: float | None = None
    ) -> None:
        """A call succeeded, after `latency` seconds; for streams also to the first token."""
        row = self._row(slot)
        policy = self.policy
        row.home._release(row.slot)
        row.count(1.0, now, policy.ewma_seconds)
        if row.latency is None:
            row.latency = Samples()
        row.latency.add(latency, now, policy.ewma_seconds)
        row.home._latencies.add(row.slot, latency, now, policy.ewma_seconds)
        if first_token is not None:
            if row.first_token is None:
                row.first_token = Samples()
            row.first_token.add(first_token, now, policy.ewma_seconds)
            row.home._first_tokens.add(row.slot, first_token, now, policy.ewma_seconds)
        was_closed = row.breaker.is_closed
        row.breaker.succeed(now, policy)
        if not was_closed:
            row.home._settle(row, now)

    def fail(
        self,
        slot: int,
        now: float,
        *,
        latency: float | None = None,
        retry_after: float | None = None,
        cooldown: bool = False,
    ) -> None:
        """A call failed, after `latency` seconds.

        With `cooldown` the deployment asked for a pause: of `retry_after` seconds, or the
        default. A pause is bounded by the policy, and nothing shortens one that has begun.
        """
        row = self._row(slot)
        policy = self.policy
        row.home._release(row.slot)
        row.count(0.0, now, policy.ewma_seconds)
        row.home._flawed.add(row.slot)
        if latency is not None:
            row.home._latencies.raise_to(row.slot, latency, now, policy.ewma_seconds)
        if cooldown:
            pause = policy.default_cooldown if retry_after is None else retry_after
            until = now + min(max(pause, 0.0), policy.max_cooldown)
            row.cooldown_until = max(row.cooldown_until, until)
        row.breaker.fail(now, policy)
        row.home._settle(row, now)

    def neutral(self, slot: int, now: float) -> None:
        """A call ended without a verdict: cancelled, or wrong in itself."""
        row = self._row(slot)
        row.home._release(row.slot)
        if not row.breaker.is_closed:
            row.breaker.neutral(now)
            row.home._settle(row, now)

    def told(self, slot: int, quotas: Mapping[str, tuple[float, float]], now: float) -> None:
        """An answer, of a call that is still under way, told what its vendor still admits: what
        is left by kind, and the seconds until it is whole again."""
        row = self._row(slot)
        allowance = row.allowance
        if allowance is None:
            allowance = row.allowance = Allowance()
            row.home._told.add(row.slot)
        allowance.learn(quotas, max(row.home._busy[row.slot] - 1, 0), now)
        row.home._judge(row, allowance, now)

    def took(self, slot: int, input_tokens: int, output_tokens: int) -> None:
        """A call has taken so many tokens, where a vendor's quota of them is known."""
        row = self._rows[slot]
        if row is not None and row.allowance is not None:
            row.allowance.took(input_tokens, output_tokens)

    def turn(self, key: object) -> int:
        """Whose turn it is in a rotation, from 0; the rotation's own meaning."""
        return self._turns.get(key) or 0

    def set_turn(self, key: object, turn: int) -> None:
        self._turns.put(key, turn)

    # What is known.

    def blocked(self, now: float) -> Set[int]:
        """The slots that are unavailable. A live view: read it, do not keep it."""
        agenda = self._agenda
        while agenda and agenda[0][0] <= now:
            row = self._rows[heappop(agenda)[1]]
            if row is not None and row.home is self:
                row.scheduled = False
                self._settle(row, now)
        return self._blocked

    def available(self, slot: int, now: float) -> bool:
        """Whether a call may begin: no pause, and the breaker admits it."""
        row = self._rows[slot]
        return row is None or row.admits(now, self.policy)

    def sound(self, slots: Iterable[int], now: float) -> bool:
        """Whether all of these are available, and their circuits closed."""
        if not self.blocked(now).isdisjoint(slots):
            return False
        rows = self._rows
        return all((row := rows[slot]) is None or row.breaker.is_closed for slot in slots)

    def state(self, slot: int, now: float) -> v1.CircuitState.ValueType:
        row = self._rows[slot]
        return v1.CIRCUIT_STATE_CLOSED if row is None else row.breaker.state(now)

    def cooldown_remaining(self, slot: int, now: float) -> float:
        """Seconds until the pause that the deployment asked for ends; 0 without one."""
        row = self._rows[slot]
        return 0.0 if row is None else max(row.cooldown_until - now, 0.0)

    def used_up(self, slot: int, now: float) -> tuple[str, float]:
        """What its vendor said is used up, and for how many more seconds; ("", 0.0): nothing."""
        row = self._rows[slot]
        if row is None or row.allowance is None:
            return "", 0.0
        kind, until = row.allowance.used_up(now)
        return kind, max(until - now, 0.0)

    def quota_left(self, slot: int, now: float) -> dict[str, float]:
        """What its vendor still admits, by kind, as far as that is known."""
        row = self._rows[slot]
        return {} if row is None or row.allowance is None else row.allowance.left(now)

    def quotas_left(self, now: float) -> Iterator[tuple[str, str, float]]:
        """The same of all whose vendors tell it: name, kind, amount."""
        for slot in self._told:
            for kind, amount in self.quota_left(slot, now).items():
                yield self._names[slot], kind, amount

    def open_remaining(self, slot: int, now: float) -> float:
        """Seconds until pause, lack of quota and open time have passed; 0 when they have."""
        row = self._rows[slot]
        return 0.0 if row is None else max(row.until() - now, 0.0)

    def latency(self, slot: int) -> float | None:
        """The fading mean of successful calls' durations, in seconds; None: unmeasured."""
        row = self._rows[slot]
        return None if row is None or row.latency is None else row.latency.mean

    def first_token(self, slot: int) -> float | None:
        """The same to the first token of streams."""
        row = self._rows[slot]
        return None if row is None or row.first_token is None else row.first_token.mean

    def success_rate(self, slot: int, now: float | None = None) -> float:
        """The share of recent calls that succeeded.

        One imagined success is counted with them, so that a newcomer starts at 1 and a first
        failure does not mean 0. With `now` what was seen fades to that time: who is no longer
        called is slowly forgiven.
        """
        row = self._rows[slot]
        if row is None or slot not in self._flawed:
            return 1.0
        kept = 1.0 if now is None else exp((row.stamp - now) / self.policy.ewma_seconds)
        return (row.good * kept + 1.0) / (row.calls * kept + 1.0)

    def success_rates(self, slots: Sequence[int], now: float) -> list[float]:
        """The success rates of many, as `success_rate` gives them."""
        flawed = self._flawed
        if flawed.isdisjoint(slots):
            return [1.0] * len(slots)
        return [self.success_rate(slot, now) if slot in flawed else 1.0 for slot in slots]

    def in_flight(self, slot: int) -> int:
        return self._busy[slot]

    def loads(self, slots: Iterable[int], now: float, stream: bool = False) -> list[float]:
        """What one more call at each may expect, in seconds, for comparison.

        That is the peak-sensitive latency (to the first token for streams, where measured)
        times the calls in flight and itself; 0 for one neither measured nor being measured.
        """
        seconds, busy = self.policy.ewma_seconds, self._busy
        values, stamps = self._latencies.values, self._latencies.stamps
        if stream:
            first = self._first_tokens
            return [
                first.values[slot] * exp((first.stamps[slot] - now) / seconds) * (busy[slot] + 1)
                if first.values[slot]
                else self.loads((slot,), now)[0]
                for slot in slots
            ]
        return [
            value * exp((stamps[slot] - now) / seconds) * (busy[slot] + 1)
            if (value := values[slot])
            else _UNMEASURED * busy[slot]
            for slot in slots
        ]

    def latency_percentile(self, slot: int, q: float, *, first_token: bool = False) -> float | None:
        """The q-quantile (0 to 1) of the last 64 latencies; None below 20 samples."""
        row = self._rows[slot]
        if row is None:
            return None
        known = row.first_token if first_token else row.latency
        return None if known is None else known.percentile(q)

    # Upkeep.

    def _release(self, slot: int) -> None:
        if self._busy[slot]:
            self._busy[slot] -= 1

    def _row(self, slot: int) -> _Row:
        row = self._rows[slot]
        if row is None:
            row = self._rows[slot] = _Row(self, slot)
        return row

    def _judge(self, row: _Row, allowance: Allowance, now: float) -> None:
        """Keeps calls away while the vendor admits none, and lets them come when it does."""
        _, until = allowance.used_up(now)
        if until != row.quota_until:
            row.quota_until = until
            self._settle(row, now)

    def _settle(self, row: _Row, now: float) -> None:
        """Brings the set of unavailable slots up to date for one row."""
        slot = row.slot
        if row.admits(now, self.policy):
            if slot in self._blocked:
                self._blocked.discard(slot)
                self.epoch += 1
            return
        if slot not in self._blocked:
            self._blocked.add(slot)
            self.epoch += 1
        if row.until() > now:
            self._schedule(row)

    def _schedule(self, row: _Row) -> None:
        """Names the row in the agenda, once: a moved time is found when its entry comes up."""
        if not row.scheduled:
            row.scheduled = True
            heappush(self._agenda, (row.until(), row.slot))
