"""Every recorded exchange with Azure and Vertex AI: each is one that a dialect's own test reads
whole, is asked for where the router would ask, and tells what the contract keeps of it besides.
"""

import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import pytest

from tests.corpus import test_anthropic, test_gemini, test_openai, test_responses
from tests.corpus.outcome import Outcome, Result
from tests.support.corpus import Exchange, corpus_dir, exchanges
from tests.support.router import price_book
from tests.support.splits import every_way
from tests.support.sse_oracle import read_events
from trunkline import v1
from trunkline_server.catalogue.compile import Endpoint, compile_snapshot
from trunkline_server.catalogue.known import known
from trunkline_server.providers.codec import CodecTarget
from trunkline_server.providers.dialects import DIALECTS
from trunkline_server.providers.gemini import GeminiCodec
from trunkline_server.providers.openai_chat import OpenAIChatCodec
from trunkline_server.providers.openai_responses import OpenAIResponsesCodec
from trunkline_server.providers.quotas import told_quotas
from trunkline_server.settings import parse
from trunkline_server.upstream.sse import SseParser

PROVIDERS = ("azure-openai", "azure-ai", "vertex")
# How many were recorded of each, by the dialect that reads them.
RECORDED = {
    ("azure-ai", "anthropic"): 56,
    ("azure-openai", "openai"): 225,
    ("azure-openai", "responses"): 43,
    ("vertex", "anthropic"): 46,
    ("vertex", "gemini"): 101,
}
HELLO = v1.GenerateRequest(
    messages=[v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text="hello")])],
)
CONFIG = """
providers:
  p:
    kind: {kind}
    base_url: {base_url}
    region: {region}
    auth: {auth}
    api_key: {key}
    flags: {flags}
"""

Finding = tuple[str, bool, bool]


@cache
def of_clouds() -> tuple[Exchange, ...]:
    return tuple(exchange for exchange in exchanges() if exchange.provider in PROVIDERS)


def dialect_of(exchange: Exchange) -> str:
    path = exchange.path.partition("?")[0]
    if "/anthropic/" in path:
        return "anthropic"
    if "/publishers/google/" in path:
        return "gemini"
    return "responses" if path.endswith("/responses") else "openai"


def test_each_exchange_is_read_whole_by_the_test_of_its_dialect() -> None:
    read = {
        "anthropic": {each.origin for each in test_anthropic.recordings()},
        "gemini": {each.origin for each in test_gemini.recordings()},
        "openai": {each.origin for each in test_openai.recordings()},
        "responses": {each.origin for each in test_responses.recordings()},
    }
    counted: Counter[tuple[str, str]] = Counter()
    for exchange in of_clouds():
        dialect = dialect_of(exchange)
        counted[exchange.provider, dialect] += 1
        assert exchange.origin in read[dialect], exchange.origin
    assert counted == RECORDED


def endpoint(kind: str, **fields: str) -> Endpoint:
    """The endpoint of a provider of this kind."""
    filled = {"base_url": '""', "region": '""', "auth": "null", "key": "null", **fields}
    lines = CONFIG.format(kind=kind, **filled).splitlines()
    text = "\n".join(line for line in lines if not line.endswith((": null", ': ""')))
    settings = parse(text, "test", {"KEY": "k"}, known())
    return compile_snapshot(settings, price_book(), now=0.0).endpoints["p"]


def called(exchange: Exchange) -> str:
    """The URL that the router calls for a model as the recorded client did."""
    path, _, query = exchange.path.partition("?")
    host, _, rest = exchange.host.partition(".")
    if exchange.provider == "azure-ai":
        base, model = endpoint("azure-anthropic", key="env:KEY", flags=f"{{resource: {host}}}"), ""
    elif exchange.provider == "vertex":
        _, _, _, project, _, region, _, publisher, _, name = path.split("/")
        kind = "vertex" if publisher == "google" else "vertex-anthropic"
        base = endpoint(kind, region=region, flags=f"{{project: {project}}}")
        model = name.rpartition(":")[0]
    else:
        version = parse_qs(query).get("api-version", ["2025-04-01-preview"])[0]
        model = path.split("/")[3] if "/deployments/" in path else "m"
        url = '""' if rest == "openai.azure.com" else f"https://{exchange.host}/openai"
        flags = f"{{resource: {host}, azure_api_version: {'v1' if '/v1/' in path else version}}}"
        base = endpoint("azure", base_url=url, key="env:KEY", flags=flags)
    codec = DIALECTS[base.dialect]
    if dialect_of(exchange) == "responses":
        codec = OpenAIResponsesCodec()
    target = CodecTarget(model or "m", 10, base.flags)
    if path.endswith("/embeddings"):
        wire = codec.encode_embed(v1.EmbedRequest(inputs=["hello"]), target)
    else:
        wire = codec.encode_generate(HELLO, target, stream=exchange.stream)
    return base.base_url + wire.path


def test_requests_go_where_the_recorded_ones_went() -> None:
    checked = 0
    for exchange in of_clouds():
        found, _, found_query = called(exchange).partition("?")
        wanted, _, query = exchange.path.partition("?")
        # The preview's paths are the same below another version.
        wanted = wanted.replace("/v1beta1/projects/", "/v1/projects/")
        assert found == f"https://{exchange.host}{wanted}", exchange.origin
        # Recordings of streams leave the query out.
        if query and exchange.provider != "vertex":
            assert found_query == query
        checked += 1
    assert checked == sum(RECORDED.values())


def recorded_findings(exchange: Exchange) -> dict[tuple[str, str], Finding]:
    """What the filter said in all of an answer, the worst of each category."""
    if exchange.stream:
        documents = [
            json.loads(data) for _, data in read_events(exchange.response) if data != b"[DONE]"
        ]
    else:
        documents = [json.loads(exchange.response)]
    worst: dict[tuple[str, str], Finding] = {}
    for subject, results in (pair for each in documents for pair in _results(each)):
        for category, result in results.items():
            severity = result.get("severity", "")
            filtered = result["filtered"]
            found = result.get("detected", filtered or severity not in {"", "safe"})
            before = worst.get((subject, category), ("", False, False))
            rank = ["", "safe", "low", "medium", "high"]
            worst[subject, category] = (
                max(before[0], severity, key=rank.index),
                before[1] or found,
                before[2] or filtered,
            )
    return worst


def _results(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for report in document.get("prompt_filter_results", []):
        yield "PROMPT", report["content_filter_results"]
    for choice in document.get("choices", []):
        yield "ANSWER", choice.get("content_filter_results", {})


def told(findings: Any) -> dict[tuple[str, str], Finding]:
    return {
        (v1.FilterSubject.Name(each.subject).removeprefix("FILTER_SUBJECT_"), each.category): (
            each.severity,
            each.detected,
            each.filtered,
        )
        for each in findings
    }


def test_what_azures_filter_says_is_kept() -> None:
    codec = OpenAIChatCodec()
    seen: Counter[bool] = Counter()
    for exchange in of_clouds():
        if dialect_of(exchange) != "openai" or exchange.provider != "azure-openai":
            continue
        if exchange.status != 200 or exchange.origin in test_openai.EXCEPTIONS:
            continue
        wanted = recorded_findings(exchange)
        seen[bool(wanted)] += 1
        if not exchange.stream:
            response = v1.GenerateResponse()
            codec.decode_generate(exchange.response, response)
            assert told(response.filter_findings) == wanted, exchange.origin
            continue
        for _, pieces in every_way(exchange.response):
            parser, decoder = SseParser(), codec.stream_decoder()
            events = [event for piece in pieces for event in parser.feed(piece)]
            for name, data in [*events, *parser.finish()]:
                decoder.feed(name, data)
            assert told(decoder.finish().filter_findings) == wanted, exchange.origin
    assert seen[True] > 200


def test_a_blocked_prompt_says_for_what() -> None:
    (origin,) = [name for name in test_openai.EXCEPTIONS if "test_azure" in name]
    (exchange,) = [each for each in of_clouds() if each.origin == origin]
    error = OpenAIChatCodec().decode_error(400, {}, exchange.response)
    assert error.reason == v1.ERROR_REASON_CONTENT_FILTER
    assert error.message.endswith("(filtered for hate (high), self-harm (high), violence (medium))")


def test_azures_limits_are_told() -> None:
    kinds = Counter(
        kind
        for exchange in of_clouds()
        if "x-ratelimit-remaining-tokens" in exchange.headers
        for kind in told_quotas(exchange.headers, 0.0)
    )
    assert kinds["tokens"] > 100
    assert kinds["requests"] > 100


class Recording(NamedTuple):
    """An answer that no dialect's own test has."""

    origin: str
    body: bytes


def recordings() -> Iterator[Recording]:
    """What Vertex AI's predict answered."""
    with tarfile.open(corpus_dir() / "wire" / "vercel-ai_fixtures.tar.gz") as archive:
        (name,) = [name for name in archive.getnames() if "google-vertex-embedding.json" in name]
        file = archive.extractfile(name)
        assert file is not None
        yield Recording(name, file.read())


def embeddings_lost(body: bytes) -> bool:
    """Whether anything of an answer of predict is lost."""
    response = v1.EmbedResponse()
    GeminiCodec().decode_embed(body, response)
    wanted = [each["embeddings"] for each in json.loads(body)["predictions"]]
    counts = [each["statistics"]["token_count"] for each in wanted]
    found = [list(vector.values) for vector in response.embeddings]
    return (
        not wanted
        or found != [pytest.approx(each["values"], rel=1e-6) for each in wanted]
        or response.usage.input_tokens != sum(counts)
    )


def test_recorded_embeddings_of_vertex_lose_nothing() -> None:
    assert not any(embeddings_lost(recording.body) for recording in recordings())


def outcomes() -> Iterator[Outcome]:
    """What became of each, for the table over all providers."""
    for recording in recordings():
        result: Result = "lost" if embeddings_lost(recording.body) else "lossless"
        yield Outcome(recording.origin, result)
