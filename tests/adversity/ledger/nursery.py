"""A program that bears writers to be killed: imports once, then forks one for each line it reads.

A line is `ROOT FIRST SYNC DSN`. The writer appends events numbered from FIRST on, some at a
time, and writes `ack NUMBER` to stdout as soon as the event's commit has returned. With a DSN
other than "-" it ships to that SQLite database meanwhile. The program writes `born PID` and,
once the writer is gone, `dead`.
"""

import asyncio
import os
import random
import sys
import traceback
from pathlib import Path
from typing import Literal, cast

from tests.unit.ledger.world import MemorySink, payload
from trunkline_server.clock import SystemClock
from trunkline_server.ledger.journal import JournalOptions
from trunkline_server.ledger.ledger import Ledger, LedgerOptions
from trunkline_server.ledger.ports import NullWatch
from trunkline_server.ledger.shipper import ShipperOptions
from trunkline_server.store.address import open_database
from trunkline_server.store.usage_sqlite import SqliteUsage


async def write_events(root: Path, first: int, sync: str, dsn: str) -> None:
    rng = random.Random(first)
    sink = MemorySink() if dsn == "-" else SqliteUsage(await open_database(dsn, "dsn"))
    options = LedgerOptions(
        # Small, so that segments and batches come and go.
        JournalOptions(sync=cast(Literal["none", "group"], sync), segment_bytes=4096),
        ShipperOptions(batch_events=16, poll=0.001),
    )
    ledger = Ledger(root, sink, SystemClock(), NullWatch(), options)
    if dsn != "-":
        ledger.start()
    number = first
    while True:
        some = range(number, number + rng.randrange(1, 6))
        for each in some:
            ledger.write(payload(each, size=rng.randrange(400)))
        await ledger.journal.committed()
        for each in some:
            os.write(1, b"ack %d\n" % each)
        number = some.stop
        await asyncio.sleep(0)


def main() -> None:
    os.write(1, b"ready\n")
    for line in sys.stdin:
        root, first, sync, dsn = line.split()
        child = os.fork()
        if child == 0:
            try:
                asyncio.run(write_events(Path(root), int(first), sync, dsn))
            except BaseException:  # noqa: BLE001 - a fork must not go on as its parent
                traceback.print_exc()
                os._exit(1)
        os.write(1, b"born %d\n" % child)
        _, status = os.waitpid(child, 0)
        os.write(1, b"dead %d\n" % status)


if __name__ == "__main__":
    main()
