"""Writes acts to the audit trail in batches, off the request path."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trunkline import v1
from trunkline_server.clock import Clock
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.audit.chain import Act, act_id, linking
from trunkline_server.governance.audit.ports import AuditStore, AuditWatch, Head
from trunkline_server.governance.audit.spool import Spool, leftovers

# Told of the chain's end now and then, to keep it elsewhere.
Checkpointer = Callable[[Head, int], object]

_BATCH = 500
# Between attempts while the store is away, in seconds: doubling from the first.
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterOptions:
    """How acts wait to be written.

    At most `max_waiting` wait in memory. When they are as many, `deny` makes `record` fail, so
    that nothing happens unrecorded, and `drop` lets acts go, counts them, and records how many
    went as soon as there is room. A checkpoint is made after `checkpoint_every` entries of this
    writer, when it has been idle for `checkpoint_after` seconds since the last ones, and when it
    stops. With a `spool`, acts survive the process; without it, those that
    wait when it is killed are lost.
    """

    max_waiting: int = 10_000
    on_full: Literal["deny", "drop"] = "deny"
    checkpoint_every: int = 1_000
    checkpoint_after: float = 60.0
    spool: Path | None = None


class AuditWriter:
    """Takes acts at once and writes them soon, in order, each once. Lives on one event loop."""

    def __init__(
        self,
        store: AuditStore,
        clock: Clock,
        watch: AuditWatch,
        options: WriterOptions | None = None,
        checkpointer: Checkpointer | None = None,
    ) -> None:
        """`checkpointer` is called in a thread. Raises OSError if the spool cannot be made."""
        self._store = store
        self._clock = clock
        self._watch = watch
        self._options = options or WriterOptions()
        self._checkpointer = checkpointer
        self._waiting: deque[Act] = deque()
        self._lost = 0
        # Of the acts in front, so many may have been written already.
        self._in_doubt = 0
        self._since_checkpoint = 0
        self._head: Head | None = None
        self._stopping = False
        self._recovered = False
        self._wake = asyncio.Event()
        self._spool = None if self._options.spool is None else Spool(self._options.spool)

    @property
    def waiting(self) -> int:
        """How many acts are not written yet."""
        return len(self._waiting)

    def record(self, act: Act, *, expendable: bool = False) -> None:
        """Takes an act. Raises TrunklineError with SERVICE_UNAVAILABLE if there is no room for
        it and `on_full` is `deny`, or if the spool's disk refuses it.

        An `expendable` one, of which strangers can make as many as they like, gets half of the
        room and is dropped where there is none, whatever `on_full` says: nobody who floods the
        trail keeps others from acting.
        """
        room = self._options.max_waiting
        if len(self._waiting) >= (max(room // 2, 1) if expendable else room):
            if self._options.on_full == "deny" and not expendable:
                raise _unavailable("too many entries wait to be written to the audit trail")
            self._drop()
            return
        if self._spool is not None:
            try:
                self._spool.add(act)
            except OSError as error:
                if expendable:
                    self._drop()
                    return
                raise _unavailable(f"the audit trail's spool: {error.strerror}") from error
        self._waiting.append(act)
        self._wake.set()

    def _drop(self) -> None:
        self._lost += 1
        self._watch.audit_lost(1)

    async def run(self) -> None:
        """Writes until `stop` is called and nothing waits any more. Raises as `recover` does, if
        that was not called before."""
        if not self._recovered:
            await self.recover()
        pause = _FIRST_PAUSE
        while True:
            if not self._waiting:
                self._note_losses()
            if not self._waiting:
                if self._stopping:
                    break
                await self._rest()
                continue
            problem = await self._write()
            if problem is None:
                pause = _FIRST_PAUSE
                continue
            self._watch.audit_delayed(len(self._waiting), problem)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        await self._checkpoint()

    def stop(self) -> None:
        """Makes `run` return once everything is written. Whoever does not wait for that cancels
        it, and what then waits is in the spool, or lost."""
        self._stopping = True
        self._wake.set()

    def close(self) -> None:
        """Lets go of the spool, when `run` is over."""
        if self._spool is not None:
            self._spool.close()

    async def _rest(self) -> None:
        """Waits for work; makes a checkpoint if there is none for long."""
        self._wake.clear()
        try:
            async with asyncio.timeout(self._options.checkpoint_after):
                await self._wake.wait()
        except TimeoutError:
            await self._checkpoint()

    async def recover(self) -> None:
        """Takes over what processes that died have left in the spool's directory; to be called
        before `run`. Raises OSError if it cannot be read."""
        self._recovered = True
        if self._options.spool is None or self._spool is None:
            return
        for path, acts in leftovers(self._options.spool):
            for act in acts:
                self._spool.add(act)
            # Those who left them may have written them.
            self._waiting.extendleft(reversed(acts))
            self._in_doubt += len(acts)
            path.unlink()

    async def _write(self) -> str | None:
        """Writes some of what waits; what went wrong, or None."""
        count = min(len(self._waiting), max(_BATCH, self._in_doubt))
        batch = [self._waiting[place] for place in range(count)]
        try:
            fresh = await self._unwritten(batch)
            # From here on it cannot be known, unless it works.
            self._in_doubt = max(self._in_doubt, count)
            if fresh:
                records = await self._store.append(linking(fresh))
                self._head = Head(records[-1].seq, records[-1].hash)
        except TrunklineError as error:
            return error.message
        self._in_doubt = 0
        for _ in range(count):
            self._waiting.popleft()
        if self._spool is not None:
            with suppress(OSError):
                # What it keeps for too long is written once all the same.
                self._spool.keep(self._waiting)
        self._watch.audit_written(len(fresh))
        self._since_checkpoint += len(fresh)
        if self._since_checkpoint >= self._options.checkpoint_every:
            await self._checkpoint()
        return None

    async def _unwritten(self, batch: Sequence[Act]) -> list[Act]:
        """Those of a batch that are not in the trail yet."""
        if not self._in_doubt:
            return list(batch)
        doubtful = {act.id for act in batch[: self._in_doubt]}
        since = min(act.at for act in batch[: self._in_doubt])
        written = set()
        async with aclosing(self._store.stream(since=since)) as records:
            async for record in records:
                written.add(act_id(record))
        return [act for act in batch if act.id not in doubtful & written]

    def _note_losses(self) -> None:
        """Records how many acts were dropped."""
        if not self._lost:
            return
        lost, self._lost = self._lost, 0
        self.record(
            Act(
                at=round(self._clock.wall() * 1e6),
                actor="trunkline",
                action="audit.lost",
                outcome="failed",
                details={"count": str(lost)},
            )
        )

    async def _checkpoint(self) -> None:
        if self._checkpointer is None or self._head is None or not self._since_checkpoint:
            return
        at = round(self._clock.wall() * 1e6)
        try:
            await asyncio.to_thread(self._checkpointer, self._head, at)
        except OSError as error:
            # The entries are safe; the next checkpoint covers them too.
            self._watch.audit_delayed(len(self._waiting), f"checkpoint: {error.strerror}")
            return
        self._since_checkpoint = 0


def _unavailable(problem: str) -> TrunklineError:
    return TrunklineError(v1.ERROR_REASON_SERVICE_UNAVAILABLE, problem, retry_after=1.0)
