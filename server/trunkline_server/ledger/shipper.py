"""From the journal to the store: in batches, again and again until each is there, once."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from trunkline import v1
from trunkline.admin import v1 as admin
from trunkline_server.clock import Clock
from trunkline_server.errors import TrunklineError
from trunkline_server.ledger.ports import EventSink, LedgerWatch, SinkRefusedError
from trunkline_server.ledger.reader import Batch, JournalReader


@dataclass(frozen=True, slots=True)
class ShipperOptions:
    """How events are shipped. Times are seconds.

    batch_events: the most at once. Turning one into a row takes some 20 us of the event loop.
    poll: how long events gather for the next batch when the last one was not full. A batch of
        two costs ten times as much for each event as one of a hundred.
    timeout: how long the store may take for a batch.
    backoff_base, backoff_max: the pause after a failure doubles from the one to the other.
    breaker_failures: after so many failures in a row the store counts as away.
    """

    batch_events: int = 128
    poll: float = 0.25
    timeout: float = 10.0
    backoff_base: float = 0.1
    backoff_max: float = 10.0
    breaker_failures: int = 3


class Shipper:
    """Ships what one or more readers have, in turn. At most one batch is in memory."""

    def __init__(
        self,
        readers: Sequence[JournalReader],
        sink: EventSink,
        clock: Clock,
        *,
        rng: random.Random,
        watch: LedgerWatch,
        options: ShipperOptions,
    ) -> None:
        self._readers = list(readers)
        self._sink = sink
        self._clock = clock
        self._rng = rng
        self._watch = watch
        self._options = options
        self._failures = 0
        # Whether the last batches left anything to be shipped at once.
        self._behind = False

    @property
    def available(self) -> bool:
        """Whether the store takes events, as far as is known."""
        return self._failures < self._options.breaker_failures

    async def run(self) -> None:
        """Ships until cancelled."""
        options = self._options
        while True:
            await self.ship()
            if self._failures:
                await asyncio.sleep(self._pause())
            elif not self._behind:
                await asyncio.sleep(options.poll)

    def release(self) -> None:
        """Lets go of the directories of others, which the next process may then take."""
        for reader in self._readers:
            if reader.complete:
                reader.directory.release()

    async def drain(self, seconds: float) -> bool:
        """Ships what there is, for so long at most; whether all of it has been shipped."""
        try:
            async with asyncio.timeout(seconds):
                while await self.ship():
                    pass
        except TimeoutError:
            return False
        return not self._failures

    async def ship(self) -> bool:
        """Ships a batch of each reader; whether there may be more."""
        more = self._behind = False
        oldest: float | None = None
        for reader in tuple(self._readers):
            try:
                batch = reader.read(self._options.batch_events)
                if batch is None:
                    self._let_go(reader)
                    continue
                events = self._parse(reader, batch)
                if events and oldest is None:
                    oldest = events[0].end_time_unix_us / 1e6
                await self._insert(reader, events)
                reader.shipped(batch)
            except Exception as error:  # noqa: BLE001 - told to the watch, and tried again
                self._failed(error)
                more = False
                break
            self._succeeded(len(events))
            more = True
            self._behind |= len(batch.payloads) >= self._options.batch_events
        seconds = 0.0 if oldest is None else max(self._clock.wall() - oldest, 0.0)
        self._watch.lag(sum(reader.waiting() for reader in self._readers), seconds)
        return more

    def _parse(self, reader: JournalReader, batch: Batch) -> list[admin.UsageEvent]:
        events: list[admin.UsageEvent] = []
        for number, payload in enumerate(batch.payloads):
            try:
                events.append(admin.UsageEvent.FromString(payload))
            except DecodeError:
                name = f"{batch.end.segment}-{batch.end.offset}-{number}"
                reader.put_record_aside(name, payload, "it is no usage event")
        return events

    async def _insert(self, reader: JournalReader, events: Sequence[admin.UsageEvent]) -> None:
        """Inserts events; those that the store will never take are put aside one by one."""
        if not events:
            return
        try:
            async with asyncio.timeout(self._options.timeout):
                await self._sink.insert(events)
        except TimeoutError:
            seconds = self._options.timeout
            raise TrunklineError(
                v1.ERROR_REASON_SERVICE_UNAVAILABLE, f"no answer within {seconds:g} s"
            ) from None
        except SinkRefusedError as error:
            if len(events) == 1:
                event = events[0]
                reader.put_record_aside(event.event_id, event.SerializeToString(), str(error))
                return
            middle = len(events) // 2
            await self._insert(reader, events[:middle])
            await self._insert(reader, events[middle:])

    def _let_go(self, reader: JournalReader) -> None:
        """Removes the directory of a worker that is no more, once all of it is shipped."""
        if reader.complete:
            self._readers.remove(reader)
            reader.directory.remove()

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._watch.ship_failed(f"{type(error).__name__}: {error}", self._failures)
        if self._failures == self._options.breaker_failures:
            self._watch.shipping(False)

    def _succeeded(self, events: int) -> None:
        if not self.available:
            self._watch.shipping(True)
        self._failures = 0
        self._watch.shipped(events)

    def _pause(self) -> float:
        options = self._options
        ceiling = min(options.backoff_base * 2 ** min(self._failures, 30), options.backoff_max)
        return self._rng.uniform(ceiling / 2, ceiling)
