"""`make run-full`: what it prints works, and it leaves nothing behind."""

import asyncio
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.support.mortal import mortal
from tests.support.ports import free_port
from tests.support.process import START_SECONDS

ROOT = Path(__file__).parents[2]


async def run(command: str) -> str:
    """What a shell command prints, which must succeed."""
    process = await asyncio.create_subprocess_shell(
        command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.mark.slow
@pytest.mark.usefixtures("postgres_home", "redis_home")
async def test_it_serves_what_it_prints_and_leaves_nothing_behind() -> None:
    flags = [
        word
        for name in ("listen", "ops-listen", "admin-listen")
        for word in (f"--{name}", f"127.0.0.1:{free_port()}")
    ]
    process = await asyncio.create_subprocess_exec(
        *mortal([sys.executable, "-m", "tools.run_full", *flags]),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    text = ""
    try:
        async with asyncio.timeout(4 * START_SECONDS):
            while "Ctrl-C ends" not in text:
                line = await process.stdout.readline()
                assert line, text
                text += line.decode()
        # As they stand, but for the folds.
        blocks = re.findall(r"^  (?:.+\\\n)*  .+$", text, flags=re.MULTILINE)
        commands = [block.strip() for block in blocks if "run-full" not in block]
        call = next(each for each in commands if "TRUNKLINE_API_KEY" in each)
        assert "Simulated answer from sim-large" in await run(call)
        if (ROOT / ".tools" / "bin" / "grpcurl").exists():
            for command in commands:
                await run(command)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), START_SECONDS) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    scratch = re.search(r"data in (\S+)", text)
    assert scratch is not None
    assert not await asyncio.to_thread(Path(scratch[1]).exists)
