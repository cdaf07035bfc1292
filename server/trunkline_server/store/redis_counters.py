"""Counters of limits and budgets in Redis, which all replicas share; one script decides a call.

Implements governance's SharedCounters. What the scripts keep is told in redis_admit.lua.
"""

import asyncio
from collections.abc import Sequence

from redis.exceptions import ResponseError

from trunkline_server.governance.quotas.ports import (
    Admission,
    Claim,
    CountersRefusedError,
    CountersUnavailableError,
    MarkOnce,
    Operation,
    RateCharge,
    RateClaim,
    SlotClaim,
    SlotRelease,
    SlotRenewal,
    SpendClaim,
    SpendRenewal,
    SpendSettlement,
    SpendSum,
)
from trunkline_server.store.redis import RedisClient, RedisUnavailableError, Script, load_script

_ADMIT = load_script("redis_admit.lua")
_SETTLE = load_script("redis_settle.lua")
_CENSUS_KEY = b"trunkline:{replicas}:seen"
_CENSUS = load_script("redis_census.lua")
_BALANCE = load_script("redis_balance.lua")
# So many counters are asked for at the same time.
_BALANCES_AT_ONCE = 100


class RedisCounters:
    """Shared counters on one Redis.

    `ledger_lag`, in seconds, is how long the ledger's sums may take to hold what was settled:
    a settlement that is older than the adoption of a lost counter by more than that is taken
    to be in its seed.
    """

    def __init__(self, client: RedisClient, *, ledger_lag: float = 5.0) -> None:
        self._client = client
        self._ledger_lag = _microseconds(ledger_lag)

    @property
    def clustered(self) -> bool:
        return self._client.clustered

    def reachable(self, key: str) -> bool:
        return self._client.reachable(key.encode())

    async def admit(self, holder: str, claims: Sequence[Claim]) -> Admission:
        keys: list[bytes] = []
        args: list[bytes] = [holder.encode()]
        for claim in claims:
            _add_claim(claim, keys, args)
        words = (await self._run(_ADMIT, keys, args)).split()
        match words[0]:
            case b"G":
                numbers = list(map(int, words[1:-1]))
                return Admission(
                    spends=list(zip(numbers[::2], numbers[1::2], strict=True)),
                    generation=words[-1].decode(),
                )
            case b"D":
                wait = int(words[2])
                return Admission(denied=int(words[1]), wait=wait if wait < 0 else wait / 1e6)
            case _:
                return Admission(unseeded=list(map(int, words[1:])))

    async def settle(self, operations: Sequence[Operation]) -> Sequence[int]:
        keys: list[bytes] = []
        args: list[bytes] = []
        for operation in operations:
            self._add_operation(operation, keys, args)
        return list(map(int, (await self._run(_SETTLE, keys, args)).split()))

    async def census(self, replica: str, lease: float) -> int:
        args = [replica.encode(), _microseconds(lease)]
        return int(await self._run(_CENSUS, [_CENSUS_KEY], args))

    async def spends(self, rule: str, period: str, step: int, steps: int) -> Sequence[SpendSum]:
        pattern = f"trunkline:{{*}}:b:{rule}:*:{period}".encode()
        try:
            keys = await self._client.scan(pattern)
        except RedisUnavailableError as error:
            raise CountersUnavailableError(str(error)) from None
        args = [b"%d" % step, b"%d" % steps]
        found: list[SpendSum] = []
        for first in range(0, len(keys), _BALANCES_AT_ONCE):
            some = keys[first : first + _BALANCES_AT_ONCE]
            replies = await asyncio.gather(
                *(self._run(_BALANCE, [key, key + b":live"], args) for key in some)
            )
            for key, reply in zip(some, replies, strict=True):
                used, reserved = reply.split()
                found.append(SpendSum(key.decode(), int(used), int(reserved)))
        return found

    async def _run(self, script: Script, keys: list[bytes], args: list[bytes]) -> bytes:
        try:
            reply = await self._client.run(script, keys, *args)
        except RedisUnavailableError as error:
            raise CountersUnavailableError(str(error)) from None
        except ResponseError as error:
            # Out of memory, no rights, a replica that is busy: its first word says which.
            code = str(error).partition(" ")[0]
            raise CountersRefusedError(f"Redis refused a script: {code}") from error
        if not isinstance(reply, bytes):
            raise CountersUnavailableError("Redis answered a script with something else")
        return reply

    def _add_operation(self, operation: Operation, keys: list[bytes], args: list[bytes]) -> None:
        key = operation.key.encode()
        match operation:
            case RateCharge():
                keys.append(key)
                args += (b"r", _number(operation.delta))
            case SlotRelease():
                keys.append(key)
                count, kept = b"%d" % operation.count, b"%d" % operation.kept
                args += (b"s", operation.holder.encode(), count, kept)
            case SlotRenewal():
                keys.append(key)
                count, lease = b"%d" % operation.count, _microseconds(operation.lease)
                args += (b"k", operation.holder.encode(), count, lease)
            case SpendRenewal():
                keys.append(key + b":live")
                member = f"{operation.holder} {operation.amount} {operation.bucket}"
                args += (b"n", member.encode(), _microseconds(operation.lease))
            case MarkOnce():
                keys.append(key)
                args += (b"m", b"%d" % operation.keep)
            case SpendSettlement():
                keys += (key, key + b":live", key + b":gone")
                args += (
                    b"b",
                    operation.holder.encode(),
                    b"%d" % operation.amount,
                    b"%d" % operation.bucket,
                    b"%d" % operation.truth,
                    operation.generation.encode(),
                    _microseconds(operation.age),
                    self._ledger_lag,
                    b"%d" % operation.keep,
                    b"1" if operation.rolling else b"0",
                )


def _add_claim(claim: Claim, keys: list[bytes], args: list[bytes]) -> None:
    key = claim.key.encode()
    if isinstance(claim, RateClaim):
        keys.append(key)
        args += (b"r", _number(claim.cost), _number(claim.tolerance))
    elif isinstance(claim, SlotClaim):
        keys.append(key)
        lease = _microseconds(claim.lease)
        args += (b"s", b"%d" % claim.capacity, lease, b"%d" % claim.count)
    else:
        keys += (key, key + b":live", key + b":gone")
        args += (
            b"b",
            b"%d" % claim.amount,
            b"%d" % claim.cap,
            _microseconds(claim.lease),
            b"%d" % claim.keep,
            b"%d" % claim.step,
            b"%d" % claim.steps,
            _seed(claim),
        )


def _seed(claim: SpendClaim) -> bytes:
    if claim.seed is None:
        return b""
    parts = ",".join(f"{bucket}:{amount}" for bucket, amount in claim.seed)
    return f"{'?' if claim.stopgap else '='}{parts}".encode()


def _microseconds(seconds: float) -> bytes:
    return b"%d" % round(seconds * 1e6)


def _number(value: float) -> bytes:
    return repr(value).encode()
