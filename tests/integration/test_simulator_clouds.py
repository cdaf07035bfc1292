"""Azure OpenAI and Vertex AI as simulated: the vendors' own SDKs are content with them, and so is
a router in front of them."""

import ssl
from collections.abc import AsyncGenerator
from typing import Any

import anthropic
import google.auth.credentials
import grpc
import httpx2
import openai
import pytest
from google import genai
from google.genai import types

from tests.support.replica import Replica, replica
from tests.support.router import PATIENCE, ask, reason
from trunkline import v1
from trunkline_server.simulator.app import Simulator

TLS = ssl.create_default_context()
VERSION = "2024-10-21"
CONFIG = """\
providers:
  azure:
    base_url: {url}/azure/openai
    api_key: env:KEY
    region: sweden-central
    residency: [eu]
    flags: {{azure_api_version: "2024-10-21"}}
  azure-v1:
    kind: azure
    base_url: {url}/azure/openai
    api_key: env:KEY
  vertex:
    base_url: "{url}/vertex/v1/projects/{{project}}/locations/{{region}}/publishers/google"
    region: europe-west4
    auth: {{header: authorization, prefix: "Bearer "}}
    api_key: env:KEY
    flags: {{project: my-project}}
  claude:
    kind: vertex-anthropic
    base_url: "{url}/vertex/v1/projects/{{project}}/locations/{{region}}/publishers/anthropic"
    region: global
    auth: {{header: authorization, prefix: "Bearer "}}
    api_key: env:KEY
    flags: {{project: my-project}}
deployments:
  - {{name: none, provider: azure, model: sim-large}}
"""
FILTER = {"x-sim-script": "fault=filter"}


@pytest.fixture
async def sim() -> AsyncGenerator[Simulator]:
    async with Simulator() as started:
        yield started


@pytest.fixture
async def http() -> AsyncGenerator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(verify=TLS) as client:
        yield client


@pytest.fixture
async def router(sim: Simulator) -> AsyncGenerator[Replica]:
    async with replica(CONFIG.format(url=sim.url), {"KEY": "k"}) as started:
        yield started


def azure(sim: Simulator, http: httpx2.AsyncClient, **fields: Any) -> openai.AsyncAzureOpenAI:
    given: dict[str, Any] = {"api_key": "k", "api_version": VERSION, "max_retries": 0, **fields}
    return openai.AsyncAzureOpenAI(azure_endpoint=f"{sim.url}/azure", http_client=http, **given)


MESSAGES: Any = [{"role": "user", "content": "Say something."}]


async def test_azures_sdk(sim: Simulator, http: httpx2.AsyncClient) -> None:
    client = azure(sim, http)
    answer = await client.chat.completions.create(model="sim-large", messages=MESSAGES)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model_extra is not None
    assert answer.model_extra["prompt_filter_results"][0]["prompt_index"] == 0
    stream = await client.chat.completions.create(
        model="sim-large", messages=MESSAGES, stream=True, extra_headers=FILTER
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices == []
    last = chunks[-1].choices[0]
    assert last.finish_reason == "content_filter"
    assert last.model_extra is not None
    assert last.model_extra["content_filter_results"]["hate"]["filtered"]
    vectors = await client.embeddings.create(model="sim-embed", input=["a", "b"])
    assert len(vectors.data) == 2
    token = azure(sim, http, api_key=None, azure_ad_token="entra-token")
    assert (await token.chat.completions.create(model="sim-large", messages=MESSAGES)).choices


@pytest.mark.parametrize(
    ("script", "kind", "code"),
    [
        ("error=authentication", openai.AuthenticationError, "401"),
        ("error=filter", openai.BadRequestError, "content_filter"),
        ("status=429", openai.RateLimitError, "429"),
        ("error=model", openai.NotFoundError, "DeploymentNotFound"),
    ],
)
async def test_azures_sdk_knows_the_failures(
    sim: Simulator,
    http: httpx2.AsyncClient,
    script: str,
    kind: type[openai.APIStatusError],
    code: str,
) -> None:
    with pytest.raises(kind) as failed:
        await azure(sim, http).chat.completions.create(
            model="sim-large", messages=MESSAGES, extra_headers={"x-sim-script": script}
        )
    assert failed.value.code == code


class Token(google.auth.credentials.Credentials):
    """A token that needs no endpoint."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.token = "ya29.token"

    def refresh(self, request: Any) -> None:
        raise AssertionError("it has no end")


async def test_vertexs_sdk(sim: Simulator, http: httpx2.AsyncClient) -> None:
    with httpx2.Client(verify=TLS) as blocking:
        options = types.HttpOptions(
            base_url=f"{sim.url}/vertex", httpx_client=blocking, httpx_async_client=http
        )
        client = genai.Client(
            vertexai=True,
            project="my-project",
            location="europe-west4",
            credentials=Token(),
            http_options=options,
        )
        models = client.aio.models
        answer = await models.generate_content(model="sim-large", contents="Say something.")
        assert answer.text
        stream = await models.generate_content_stream(model="sim-large", contents="More.")
        assert "".join([chunk.text or "" async for chunk in stream])
        # Of names without "gemini" the SDK thinks that predict is theirs.
        vectors = await models.embed_content(model="sim-embed", contents=["a", "b"])
        assert vectors.embeddings is not None
        assert len(vectors.embeddings) == 2
        assert vectors.embeddings[0].statistics is not None
        assert vectors.embeddings[0].statistics.token_count


async def test_anthropics_sdk_for_vertex(sim: Simulator, http: httpx2.AsyncClient) -> None:
    client = anthropic.AsyncAnthropicVertex(
        region="europe-west1",
        project_id="my-project",
        access_token="ya29.token",
        base_url=f"{sim.url}/vertex/v1",
        http_client=http,
        max_retries=0,
    )
    messages: Any = [{"role": "user", "content": "Say something."}]
    answer = await client.messages.create(model="sim-large", max_tokens=64, messages=messages)
    assert answer.content[0].type == "text"
    async with client.messages.stream(
        model="sim-large", max_tokens=64, messages=messages
    ) as stream:
        assert (await stream.get_final_message()).content[0].type == "text"


@pytest.mark.parametrize("provider", ["azure", "azure-v1", "vertex", "claude"])
async def test_a_router_speaks_to_them(router: Replica, provider: str) -> None:
    request = ask(model=f"{provider}/sim-large")
    answer = await router.stub.Generate(request, timeout=PATIENCE)
    assert answer.message.parts[0].text
    assert answer.usage.source == v1.USAGE_SOURCE_PROVIDER
    assert bool(answer.filter_findings) == provider.startswith("azure")
    events = [each async for each in router.stub.StreamGenerate(request, timeout=PATIENCE)]
    assert events[-1].end.finish_reason == v1.FINISH_REASON_STOP
    assert bool(events[-1].end.filter_findings) == provider.startswith("azure")


@pytest.mark.parametrize("provider", ["azure", "azure-v1", "vertex"])
async def test_a_router_embeds_with_them(router: Replica, provider: str) -> None:
    request = v1.EmbedRequest(model=f"{provider}/sim-embed", inputs=["a", "b"], dimensions=8)
    answer = await router.stub.Embed(request, timeout=PATIENCE)
    assert [len(each.values) for each in answer.embeddings] == [8, 8]
    assert answer.usage.input_tokens


async def test_a_filter_in_the_middle_of_a_stream(router: Replica) -> None:
    request = ask(model="azure/sim-large?fault=filter")
    events = [each async for each in router.stub.StreamGenerate(request, timeout=PATIENCE)]
    end = events[-1].end
    assert "".join(each.delta.text for each in events)
    assert end.finish_reason == v1.FINISH_REASON_CONTENT_FILTER
    filtered = [each for each in end.filter_findings if each.filtered]
    assert [(each.subject, each.category, each.severity) for each in filtered] == [
        (v1.FILTER_SUBJECT_ANSWER, "hate", "high")
    ]


async def test_a_blocked_prompt(router: Replica) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        await router.stub.Generate(ask(model="azure/sim-large?error=filter"), timeout=PATIENCE)
    assert reason(failed.value) == v1.ERROR_REASON_CONTENT_FILTER
    assert isinstance(failed.value, grpc.aio.AioRpcError)
    assert (failed.value.details() or "").endswith("(filtered for hate (high))")
