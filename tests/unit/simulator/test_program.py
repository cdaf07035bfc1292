"""The program that serves, and the configuration that points to it."""

import argparse
import asyncio
import signal
import sys
from importlib import resources

import pytest
import yaml

from tests.support.mortal import mortal
from tests.unit.simulator.raw import KEYS, exchange
from trunkline_server.simulator.__main__ import build_parser, parse_address
from trunkline_server.simulator.models import MODELS


def test_addresses() -> None:
    assert parse_address("127.0.0.1:0") == ("127.0.0.1", 0)
    assert parse_address("[::1]:80") == ("::1", 80)
    for text in ("localhost", ":80", "host:", "host:x", "host:65536"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not HOST:PORT"):
            parse_address(text)


def test_defaults() -> None:
    arguments = build_parser().parse_args([])
    assert arguments.listen == ("127.0.0.1", 18080)
    assert (arguments.latency_ms, arguments.chunk_ms, arguments.rpm) == (0, 0, 0)
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--latency-ms", "-1"])


async def test_serves_until_it_is_told_to_stop() -> None:
    command = ("-m", "trunkline_server.simulator", "--listen", "127.0.0.1:0", "--tokens", "5")
    program = await asyncio.create_subprocess_exec(
        *mortal([sys.executable, *command]), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert program.stdout is not None
        async with asyncio.timeout(30):
            line = (await program.stdout.readline()).decode()
        url = line.split()[-1]
        body = {"model": "sim-large", "messages": [{"role": "user", "content": "hi"}]}
        got = await exchange(url, "/openai/v1/chat/completions", body)
        assert got.json["usage"]["completion_tokens"] == 5
        # uvloop's sockets are not asyncio's: a reset must be one there too.
        got = await exchange(url, "/openai/v1/chat/completions", {**body, "model": "sim-reset"})
        assert (got.raw, got.end) == (b"", "reset")
        hanging = asyncio.create_task(
            exchange(url, "/openai/v1/chat/completions", {**body, "model": "sim-hang"})
        )
        while not (await exchange(url, "/sim/calls", method="GET", headers={})).json["active"]:
            assert not hanging.done()
        program.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await program.wait() == 0
        assert (await hanging).raw == b""
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()


def test_configuration_is_whole() -> None:
    """Every name that is pointed to exists, and no key is written down."""
    text = resources.files("trunkline_server.simulator").joinpath("trunkline.yaml").read_text()
    found = yaml.safe_load(text)
    assert found.keys() == {"providers", "deployments", "models", "routes"}
    deployments = {one["name"]: one for one in found["deployments"]}
    assert len(deployments) == len(found["deployments"])
    for provider in found["providers"].values():
        assert provider["api_key"] == "env:TRUNKLINE_SIMULATOR_KEY"
        assert provider["kind"] in KEYS
    for one in deployments.values():
        model = MODELS[one["model"]]
        assert one["provider"] in found["providers"]
        assert one.get("context_tokens", 0) == model.context_tokens
        assert one.get("max_output_tokens", 0) == model.max_output_tokens
        assert ("vision" in one["capabilities"]) is model.vision
        assert ("chat" in one["capabilities"]) is model.chat
        assert ("image_generation" in one["capabilities"]) is model.images
        assert ("transcription" in one["capabilities"]) is model.transcripts
        assert ("speech" in one["capabilities"]) is model.speech
        assert ("rerank" in one["capabilities"]) is model.rerank
        assert all(isinstance(amount, str) for amount in one["price"].values())
    for choice in (*found["models"].values(), *found["routes"].values()):
        assert set(choice["deployments"]) <= deployments.keys()
    for name in found["routes"]["eu-only"]["deployments"]:
        assert "eu" in deployments[name]["residency"]
