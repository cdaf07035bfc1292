"""The example package: built as a wheel, installed into a folder of its own, and called through a
running router of its own process."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from aiohttp import web

from tests.support.process import router_process
from tests.support.router import PATIENCE, ask, channel_to, reason
from trunkline import v1
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "trunkline-parrot"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the built wheel is installed into, beside nothing else."""
    scratch = tmp_path_factory.mktemp("parrot")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
    alone = ["--no-deps", "--no-index"]
    source = scratch / "source"
    # Building leaves its own files beside the source.
    shutil.copytree(EXAMPLE, source)
    build = ["wheel", *alone, "--no-build-isolation", "--wheel-dir", str(scratch), str(source)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = scratch.glob("trunkline_parrot-1.0.0-*.whl")
    assert "trunkline_parrot/providers.yaml" in zipfile.ZipFile(wheel).namelist()
    target = scratch / "site"
    subprocess.run([*pip, "install", *alone, "--target", str(target), str(wheel)], check=True)
    return target


class Parrot:
    """The made-up vendor."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def repeat(self, request: web.Request) -> web.StreamResponse:
        self.keys.append(request.headers.get("x-parrot-key", ""))
        body = await request.json()
        words = body["text"].split()
        counts = {"heard_words": len(words), "said_words": len(words)}
        if body["model"] == "shy":
            return web.Response(status=429, text="not today", headers={"retry-after": "5"})
        if not body["stream"]:
            return web.json_response({"said": " ".join(words), **counts})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for word in words:
            await response.write(b"data: " + json.dumps({"word": word}).encode() + b"\n\n")
        done = json.dumps({"done": True, **counts}).encode()
        await response.write(b"data: " + done + b"\n\n")
        return response


@asynccontextmanager
async def vendor() -> AsyncGenerator[tuple[Parrot, str]]:
    parrot = Parrot()
    app = web.Application()
    app.router.add_post("/repeat", parrot.repeat)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield parrot, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def config(folder: Path, url: str) -> Path:
    path = folder / "trunkline.yaml"
    path.write_text(
        f"providers: {{parrot: {{base_url: '{url}', api_key: 'env:PARROT_API_KEY'}}}}\n"
        "deployments:\n"
        "  - {provider: parrot, model: polly, capabilities: [chat, streaming, tools]}\n"
        "  - {provider: parrot, model: shy, capabilities: [chat]}\n"
        "models: {large: {deployments: [parrot-polly], attempts: {retries: 0}}}\n"
    )
    return path


async def test_it_is_called_through_a_router(installed: Path, tmp_path: Path) -> None:
    env = {"PYTHONPATH": str(installed), "PARROT_API_KEY": "seeds"}
    async with vendor() as (parrot, url):
        path = config(tmp_path, url)
        async with (
            router_process("--config", str(path), env=env) as process,
            channel_to(process.address) as channel,
        ):
            stub = InferenceServiceStub(channel)
            answer = await stub.Generate(ask("pieces of eight"), timeout=PATIENCE)
            assert answer.message.parts[0].text == "pieces of eight"
            assert answer.usage.input_tokens == 3
            events = [
                event
                async for event in stub.StreamGenerate(ask("pieces of eight"), timeout=PATIENCE)
            ]
            assert [event.delta.text for event in events[1:-1]] == ["pieces", "of", "eight"]
            assert events[-1].end.usage.output_tokens == 3
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Generate(ask(model="shy"), timeout=PATIENCE)
            assert reason(caught.value) == v1.ERROR_REASON_RATE_LIMIT
            request = ask()
            request.tools.add(name="whistle")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Generate(request, timeout=PATIENCE)
            assert reason(caught.value) == v1.ERROR_REASON_INVALID_REQUEST
        assert set(parrot.keys) == {"seeds"}


async def _check(path: Path, env: dict[str, str]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trunkline_server", "check", str(path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PARROT_API_KEY": "seeds", **env},
    )
    told, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, told.decode()


async def test_check_tells_of_it_and_misses_it(installed: Path, tmp_path: Path) -> None:
    path = config(tmp_path, "http://127.0.0.1:1")
    code, told = await _check(path, {"PYTHONPATH": str(installed)})
    assert code == 0
    assert "dialects of installed packages: parrot" in told
    code, told = await _check(path, {})
    assert code != 0
    assert "parrot" in told


async def test_one_that_is_broken_ends_the_start_with_its_name(tmp_path: Path) -> None:
    site = tmp_path / "site"
    info = site / "broken_bird-0.3.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-bird\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text("[trunkline.dialects]\nbird = broken_bird:Codec\n")
    (site / "broken_bird.py").write_text("raise RuntimeError('no wings')\n")
    path = config(tmp_path, "http://127.0.0.1:1")
    code, told = await _check(path, {"PYTHONPATH": str(site)})
    assert code != 0
    assert (
        "broken-bird 0.3: trunkline.dialects 'bird' (broken_bird:Codec): cannot be loaded" in told
    )
    assert "RuntimeError: no wings" in told
    assert "Traceback" not in told
