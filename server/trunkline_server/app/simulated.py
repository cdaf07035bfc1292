"""The simulated providers as a child process: `python -m trunkline_server.app.simulated`."""

import asyncio
import sys

import uvloop

from trunkline_server.app.lifeline import stop_on_signals, stop_with_parent
from trunkline_server.app.supervisor import READY_LINE
from trunkline_server.simulator.app import Simulator


async def main(address: str) -> None:
    """Serves at HOST:PORT until told to stop, or until the parent is gone."""
    host, _, port = address.rpartition(":")
    simulator = Simulator(host=host, port=int(port))
    await simulator.start()
    stop = asyncio.Event()
    stop_on_signals(stop.set)
    stop_with_parent(stop.set)
    sys.stdout.buffer.write(READY_LINE)
    sys.stdout.buffer.flush()
    await stop.wait()
    await simulator.stop()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
