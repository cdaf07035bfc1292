"""The log as a stream of bytes."""

import json
import os
import subprocess
import sys

PROGRAM = """
import logging
import structlog
from trunkline_server.telemetry.logs import configure_logging

configure_logging("info", "json")
for number in range(300):
    structlog.get_logger().info("ours", number=number)
    logging.getLogger("library").warning("theirs %d", number)
"""


def test_lines_of_several_processes_do_not_mix() -> None:
    """They share one pipe, as a supervisor's workers do."""
    read, write = os.pipe()
    writers = [subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=write) for _ in range(3)]
    os.close(write)
    with os.fdopen(read) as log:
        lines = [json.loads(line) for line in log]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert len(lines) == 3 * 600
    assert {line["event"].split()[0] for line in lines} == {"ours", "theirs"}
