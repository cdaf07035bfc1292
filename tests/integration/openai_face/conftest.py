"""A router with simulated providers whose OpenAI-compatible face is on, and OpenAI's SDK."""

import hashlib
import ssl
from collections.abc import AsyncGenerator
from functools import cache

import httpx2
import openai
import pytest

from tests.support.router import Router, router
from trunkline_server.simulator.app import Simulator

KEY = "tk_the-key-of-a-caller"
# May use the model `openai` and no other.
BOUNDED_KEY = "tk_the-key-of-a-bounded-caller"

PATHS = {"openai": "openai/v1", "anthropic": "anthropic", "gemini": "gemini/v1beta"}
CAN = "[chat, streaming, tools, parallel_tools, vision, audio, file, structured_output, reasoning]"


def configuration(url: str) -> str:
    """One model for each dialect, called after it, and one that embeds."""
    lines = [
        "providers:",
        *(
            f"  sim-{name}: {{kind: {name}, base_url: '{url}/{path}', api_key: 'env:TEST_KEY'}}"
            for name, path in PATHS.items()
        ),
    ]
    lines += [
        "deployments:",
        *(
            f"  - {{name: {name}-large, provider: sim-{name}, model: sim-large, "
            f"capabilities: {CAN}, price: {{input: '2', output: '8'}}}}"
            for name in PATHS
        ),
        "  - {name: vectors, provider: sim-openai, model: sim-embed, capabilities: [embedding], "
        "price: {input: '1', output: '0'}}",
        "models:",
        *(f"  {name}: {{deployments: [{name}-large]}}" for name in PATHS),
        "  embed: {deployments: [vectors]}",
        "keys:",
        f"  - {{name: caller, hash: 'sha256:{digest(KEY)}'}}",
        f"  - {{name: bounded, hash: 'sha256:{digest(BOUNDED_KEY)}', models: [openai]}}",
    ]
    return "\n".join(lines)


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@cache
def tls() -> ssl.SSLContext:
    """Reading the machine's certificates takes longer than any test here: they are read once."""
    return ssl.create_default_context()


@pytest.fixture
async def trunkline() -> AsyncGenerator[Router]:
    """The router."""
    async with (
        Simulator(port=0) as simulator,
        router(configuration(simulator.url), openai_listen="127.0.0.1:0") as trunkline,
    ):
        yield trunkline


@pytest.fixture
async def client(trunkline: Router) -> AsyncGenerator[openai.AsyncOpenAI]:
    """OpenAI's SDK, as it is, with the router's address and key."""
    async with openai.AsyncOpenAI(
        base_url=trunkline.openai_url,
        api_key=KEY,
        max_retries=0,
        http_client=httpx2.AsyncClient(verify=tls()),
    ) as client:
        yield client
