"""The ledger of one process: its journal, those it took over, and the way to the store."""

import asyncio
import os
import random
from dataclasses import dataclass, field
from pathlib import Path

from trunkline_server.clock import Clock
from trunkline_server.ledger.directory import JournalDirectory, Quarantine, orphans
from trunkline_server.ledger.journal import Journal, JournalOptions
from trunkline_server.ledger.live import LiveEvents
from trunkline_server.ledger.ports import EventSink, LedgerWatch
from trunkline_server.ledger.reader import JournalReader
from trunkline_server.ledger.shipper import Shipper, ShipperOptions


@dataclass(frozen=True, slots=True)
class LedgerOptions:
    """How the ledger works."""

    journal: JournalOptions = field(default_factory=JournalOptions)
    shipper: ShipperOptions = field(default_factory=ShipperOptions)


class Ledger:
    """Keeps events under `root`, which workers share, and ships them to `sink`.

    To be made inside a running event loop. Raises OSError if `root` cannot be written.
    """

    def __init__(
        self,
        root: Path,
        sink: EventSink,
        clock: Clock,
        watch: LedgerWatch,
        options: LedgerOptions,
    ) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        quarantine = Quarantine(root)
        directory = JournalDirectory.create(root)
        adopted = [
            JournalReader(orphan, quarantine, watch, freed=self._freed) for orphan in orphans(root)
        ]
        for reader in adopted:
            watch.adopted(reader.directory.name, len(reader.directory.segments()))
            try:
                reader.recover()
            except OSError as error:
                # A full disk, for one. What cannot be put aside now is when it is read.
                watch.unreadable(reader.directory.name, os.strerror(error.errno or 0))
        waiting = sum(reader.bytes_on_disk() for reader in adopted)
        self.live = LiveEvents()
        self.journal = Journal(directory, options.journal, watch, waiting)
        self._own = JournalReader(
            directory,
            quarantine,
            watch,
            active=lambda: self.journal.active_segment,
            freed=self._freed,
        )
        self.shipper = Shipper(
            [self._own, *adopted],
            sink,
            clock,
            # Jitter.
            rng=random.Random(),  # noqa: S311
            watch=watch,
            options=options.shipper,
        )
        self._directory = directory
        self._shipping: asyncio.Task[None] | None = None

    def write(self, event: bytes) -> None:
        """Takes a serialised event: to the journal, and to those who watch live."""
        self.journal.append(event)
        self.live.publish(event)

    @property
    def waiting(self) -> int:
        """The bytes of this process that have not been shipped."""
        return self._own.waiting()

    async def catch_up(self, seconds: float) -> bool:
        """Ships what workers that are no more have left, for so long at most; whether all of
        it was shipped. To be called before `start`."""
        return await self.shipper.drain(seconds)

    def start(self) -> None:
        """Begins to ship."""
        self._shipping = asyncio.create_task(self.shipper.run())

    async def close(self, seconds: float = 5.0) -> None:
        """Writes and ships what there is, for so long at most.

        What has not been shipped then waits for the next process.
        """
        if self._shipping is not None:
            self._shipping.cancel()
            await asyncio.wait([self._shipping])
        await self.journal.close()
        if await self.shipper.drain(seconds) and not self._own.waiting():
            self._directory.remove()
        else:
            self._directory.release()
        self.shipper.release()

    def _freed(self, size: int) -> None:
        self.journal.freed(size)
