"""The example program, run as its reader would run it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from tests.unit.client.scripted import Context, Served, end_event, start_event, text_event
from trunkline import v1

EXAMPLE = Path(__file__).parents[3] / "clients" / "python" / "examples" / "chat.py"


async def test_chat_keeps_its_history_and_survives_a_failure(served: Served) -> None:
    async def script(request: v1.GenerateRequest, context: Context) -> AsyncIterator[Any]:
        asked = request.messages[-1].parts[0].text
        if asked == "fail":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        yield start_event()
        yield text_event(f"re: {asked}")
        yield end_event()

    served.router.on_stream = script
    chat = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLE),
        "gpt-5",
        env={"TRUNKLINE_TARGET": served.target},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(chat.communicate(b"one\nfail\ntwo\n"), 30)

    assert chat.returncode == 0
    assert out.decode() == "> re: one\n> > re: two\n> "
    assert err.decode() == "UNAVAILABLE: down\n"
    last = served.router.calls[-1].request
    assert last.model == "gpt-5"
    assert [(message.role, message.parts[0].text) for message in last.messages] == [
        (v1.ROLE_USER, "one"),
        (v1.ROLE_ASSISTANT, "re: one"),
        (v1.ROLE_USER, "two"),
    ]
