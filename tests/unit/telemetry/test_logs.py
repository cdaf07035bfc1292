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


REDACTING = """
import logging
import structlog
from trunkline_server.telemetry.logs import Redaction, configure_logging

of_others = lambda text: text.replace("ann", "[NAME]").replace("10.0.0.1", "[IP]")
own = lambda text: text.replace("ann", "[NAME]")
configure_logging("info", "json", Redaction(of_others, own))
log = structlog.get_logger()
log.info("serving", listen="10.0.0.1:80", names=["ann", 3], more={"who": "ann"}, port=80)
log.info("call refused", request_id="ann", error="10.0.0.1 of ann", trace_id="ann", count=1)
logging.getLogger("library").warning("of %s at %s", "ann", "10.0.0.1")
try:
    raise ValueError("no ann")
except ValueError as error:
    log.error("internal error", operation="generate", exc_info=error)
"""


def test_every_text_is_redacted_by_whose_it_is() -> None:
    """Addresses of machines stay in what the router says of itself."""
    done = subprocess.run(
        [sys.executable, "-c", REDACTING], capture_output=True, check=True, text=True
    )
    serving, refused, library, defect = map(json.loads, done.stderr.splitlines())
    assert serving["listen"] == "10.0.0.1:80"
    assert serving["names"] == ["[NAME]", 3]
    assert serving["more"] == {"who": "[NAME]"}
    assert serving["port"] == 80
    assert (refused["request_id"], refused["error"]) == ("[NAME]", "[IP] of [NAME]")
    assert refused["trace_id"] == "ann"
    assert library["event"] == "of [NAME] at 10.0.0.1"
    assert "ValueError: no [NAME]" in defect["exception"]
