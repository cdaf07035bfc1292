"""The catalogue's files, and how strictly such files are read."""

from importlib import resources

import pytest
import yaml
from genai_prices.data import providers as price_table

from trunkline_server.catalogue.extensions import provider_rows
from trunkline_server.catalogue.known import known
from trunkline_server.catalogue.models import CAPABILITIES, model_catalogue, read_models
from trunkline_server.catalogue.rows import read_rows
from trunkline_server.providers import openai_chat
from trunkline_server.providers.dialects import DIALECTS
from trunkline_server.settings import AuthSettings, ConfigError


def source(name: str) -> str:
    return (resources.files("trunkline_server.catalogue") / name).read_text("utf-8")


def test_the_rows_of_three_vendors() -> None:
    rows = provider_rows()
    assert list(rows)[:3] == ["openai", "anthropic", "gemini"]
    assert rows["openai"].auth == AuthSettings(header="authorization", prefix="Bearer ")
    assert rows["anthropic"].auth == AuthSettings(header="x-api-key", prefix="")
    assert rows["gemini"].env == ("GEMINI_API_KEY", "GOOGLE_API_KEY")


def test_every_row_has_a_codec_a_price_list_and_a_place_for_its_key() -> None:
    priced = {provider.id for provider in price_table}
    for name, row in provider_rows().items():
        assert row.dialect in DIALECTS, name
        # Where the price table has nothing of a vendor, that is said by naming none.
        assert row.price_provider in {"", *priced}, name
        # Those that one runs oneself are looked for on this machine, and may want no key.
        local = row.base_url.startswith(("http://127.0.0.1:", "http://localhost:"))
        assert local or row.base_url.startswith("https://"), name
        assert row.env or local or row.auth.cloud, name


def test_rows_have_flags_that_their_dialects_know() -> None:
    known_flags = {"openai": openai_chat.FLAGS, "cohere": {}}
    for name, row in provider_rows().items():
        if row.dialect in known_flags:
            assert not row.flags.keys() - known_flags[row.dialect].keys(), name
            for flag, value in row.flags.items():
                default = known_flags[row.dialect][flag]
                assert type(value) is type(default), (name, flag)
                assert value != default, (name, flag)


def test_variables_belong_to_one_row() -> None:
    variables = [variable for row in provider_rows().values() for variable in row.env]
    assert len(variables) == len(set(variables))


def test_rows_stay_short() -> None:
    blocks = source("providers.yaml").split("\n\n")[1:]
    assert len(blocks) == len(provider_rows())
    for block in blocks:
        assert len(block.strip().splitlines()) <= 15


def test_what_configurations_are_checked_against() -> None:
    assert set(known().kinds) == set(provider_rows())
    assert known().kinds["openai"].env == ("OPENAI_API_KEY",)
    assert set(known().dialects or ()) <= set(DIALECTS)
    assert known().price_providers == {provider.id for provider in price_table}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x: {base_url: https://x}", "rows.yaml:1: x: lacks dialect"),
        (
            "x: {dialect: openai, base_url: https://x, envs: [A]}",
            "rows.yaml:1: x.envs: is not known here; did you mean env?",
        ),
        (
            "x: {dialect: openai, base_url: https://x, auth: {prefix: Bearer}}",
            "rows.yaml:1: x.auth: lacks header; write one of header, aws, entra and google",
        ),
        ("- x", "rows.yaml:1: write a map of names"),
    ],
)
def test_wrong_rows(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_rows(text, "rows.yaml")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("kind", "model", "some", "not_some"),
    [
        ("openai", "gpt-5-2025-08-07", {"reasoning", "vision", "tools"}, {"audio"}),
        ("openai", "GPT-4o", {"vision", "parallel_tools"}, {"reasoning"}),
        ("openai", "o3-mini", {"reasoning"}, {"vision", "parallel_tools"}),
        ("openai", "gpt-3.5-turbo", {"tools"}, {"vision", "structured_output"}),
        ("openai", "gpt-4o-audio-preview", {"audio"}, {"vision"}),
        ("openai", "text-embedding-3-small", {"embedding"}, {"chat", "streaming"}),
        ("anthropic", "claude-3-haiku-20240307", {"vision"}, {"reasoning", "file"}),
        ("anthropic", "claude-sonnet-4-20250514", {"reasoning"}, {"structured_output"}),
        ("anthropic", "claude-opus-4-5-20251101", {"structured_output"}, {"audio"}),
        ("gemini", "gemini-2.5-flash-lite", {"audio", "file", "reasoning"}, {"embedding"}),
        ("gemini", "gemini-embedding-001", {"embedding"}, {"chat"}),
        ("bedrock", "us.anthropic.claude-sonnet-4-20250514-v1:0", {"reasoning"}, {"audio"}),
        ("bedrock", "amazon.nova-micro-v1:0", {"tools"}, {"vision"}),
        ("bedrock", "eu.amazon.nova-lite-v1:0", {"vision", "file"}, {"reasoning"}),
        ("bedrock", "amazon.titan-embed-text-v2:0", {"embedding"}, {"chat"}),
        (
            "bedrock",
            "arn:aws:bedrock:us-east-1:012345678901:inference-profile/"
            "us.anthropic.claude-opus-4-5-20251101-v1:0",
            {"structured_output", "reasoning"},
            {"embedding"},
        ),
        ("mistral", "mistral-large-2512", {"vision", "parallel_tools"}, {"reasoning"}),
        ("perplexity", "sonar", {"vision", "structured_output"}, {"tools", "parallel_tools"}),
        ("deepseek", "deepseek-chat", {"tools"}, {"structured_output", "vision", "reasoning"}),
        # It thinks, but may not be told how hard.
        ("xai", "grok-4-0709", {"vision", "tools"}, {"reasoning"}),
        ("xai", "grok-3-mini-fast", {"reasoning"}, {"vision"}),
        ("cohere", "rerank-v3.5", {"rerank"}, {"chat", "embedding"}),
        ("cohere", "command-a-vision-07-2025", {"vision"}, {"tools"}),
        ("cohere", "embed-v4.0", {"embedding"}, {"chat"}),
        # Hosts that serve others' models have no section of their own.
        ("groq", "llama-3.3-70b-versatile", {"tools"}, {"vision"}),
        ("groq", "meta-llama/llama-4-scout-17b-16e-instruct", {"vision", "tools"}, {"audio"}),
        ("together", "deepseek-ai/DeepSeek-V4-Pro-0813", {"reasoning"}, {"vision"}),
        ("fireworks", "accounts/fireworks/models/kimi-k2p5", {"vision"}, {"audio"}),
        ("huggingface", "openai/gpt-oss-120b:groq", {"reasoning"}, {"vision"}),
        ("cerebras", "gpt-oss-120b", {"structured_output"}, {"parallel_tools"}),
        ("somewhere", "anthropic/claude-sonnet-4-5", {"reasoning"}, {"audio"}),
    ],
)
def test_what_models_can_do(kind: str, model: str, some: set[str], not_some: set[str]) -> None:
    entry = model_catalogue().find(kind, model)
    assert entry is not None
    assert some <= set(entry.capabilities)
    assert not not_some & set(entry.capabilities)


@pytest.mark.parametrize(
    ("kind", "model", "limit"),
    [
        ("openai", "gpt-4o-2024-05-13", 4096),
        ("openai", "gpt-4o-2024-08-06", 16384),
        ("openai", "gpt-4.1", 32768),
        ("openai", "gpt-5-mini", 128000),
        ("anthropic", "claude-3-5-sonnet-20241022", 8192),
        ("anthropic", "claude-opus-4-1", 32000),
        ("anthropic", "claude-haiku-4-5", 64000),
        ("bedrock", "global.anthropic.claude-haiku-4-5-20251001-v1:0", 64000),
        ("gemini", "gemini-2.5-pro", 65536),
    ],
)
def test_output_limits(kind: str, model: str, limit: int) -> None:
    entry = model_catalogue().find(kind, model)
    assert entry is not None
    assert entry.max_output_tokens == limit


def test_models_that_need_their_own_switches() -> None:
    find = model_catalogue().find
    for kind, model, flags in (
        ("anthropic", "claude-sonnet-4-5", {"effort": "budget"}),
        ("anthropic", "claude-opus-4-6", {}),
        ("gemini", "gemini-2.5-flash", {"effort_as": "budget"}),
        ("gemini", "gemini-3-pro-preview", {}),
        ("bedrock", "cohere.command-r-plus-v1:0", {"family": "cohere"}),
        ("bedrock", "amazon.titan-embed-text-v2:0", {"embed_as": "titan"}),
        (
            "bedrock",
            "mistral.mistral-7b-instruct-v0:2",
            {"family": "mistral", "system_in_user": True},
        ),
    ):
        entry = find(kind, model)
        assert entry is not None
        assert entry.flags == flags


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("openai", "o3-deep-research"),
        ("openai", "gpt-4o-realtime-preview"),
        ("openai", "gpt-image-1"),
        ("anthropic", "claude-2.1"),
        ("gemini", "gemini-2.5-flash-image"),
        ("gemini", "gemini-1.5-pro"),
        # A name of the price table, and a model that only a region's profile serves.
        ("bedrock", "regional.anthropic.claude-haiku-4-5-20251001-v1:0"),
        ("bedrock", "meta.llama3-3-70b-instruct-v1:0"),
        ("mistral", "mistral-ocr-latest"),
        ("perplexity", "r1-1776"),
        ("xai", "grok-4.20-multi-agent-0309"),
    ],
)
def test_models_not_offered(kind: str, model: str) -> None:
    entry = model_catalogue().find(kind, model)
    assert entry is not None
    assert not entry.listed


def test_models_not_known() -> None:
    assert model_catalogue().find("openai", "llama-3") is None
    assert model_catalogue().find("anthropic", "gpt-5") is None
    assert model_catalogue().find("somewhere", "llama-3") is None
    # What OpenAI does not list of its own says nothing of others' models with such names.
    assert model_catalogue().find("openai", "o3-pro") is not None
    assert model_catalogue().find("somewhere", "others/great-model-pro") is None


def test_every_entry_is_reachable_and_consistent() -> None:
    """No pattern hides behind an earlier one, and conversation comes with streaming."""
    sections = yaml.safe_load(source("models.yaml"))
    for kind, entries in sections.items():
        for entry in entries:
            capabilities = set(entry.get("capabilities", ()))
            assert capabilities <= CAPABILITIES
            assert "chat" in capabilities or "streaming" not in capabilities
            # Only of models of the Responses API is it not sure that they stream.
            assert "streaming" in capabilities or "chat" not in capabilities or "dialect" in entry
            assert ("parallel_tools" not in capabilities) or "tools" in capabilities
            for pattern in entry["match"]:
                example = pattern.replace("*", "")
                found = model_catalogue().find(kind, example)
                assert found is not None
                assert pattern in found.match or "*" in pattern, (kind, pattern, found.match)


def test_wrong_models() -> None:
    with pytest.raises(ConfigError) as caught:
        read_models("a:\n- {match: x, capabilities: [fly, chat], quality: 2}\n- {}", "m.yaml")
    assert str(caught.value).splitlines() == [
        "m.yaml:2: a[0].capabilities: 'fly' is not one of audio, chat, embedding, file, "
        "image_generation, parallel_tools, reasoning, rerank, speech, streaming, "
        "structured_output, tools, transcription, vision",
        "m.yaml:2: a[0].quality: must be at most 1",
        "m.yaml:3: a[1]: lacks match",
    ]
