"""The tables and figures of README.md and deploy/README.md are those of the code."""

import inspect
import re
import tomllib
from collections import Counter
from collections.abc import Container, Sequence, Set
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import pytest
import yaml
from prometheus_client import CollectorRegistry

from tests.corpus import (
    test_anthropic,
    test_bedrock,
    test_cohere,
    test_gemini,
    test_openai,
    test_responses,
)
from tests.perf import pii_figures
from tests.support.corpus import corpus_dir, exchanges, read_jsonl
from trunkline import v1
from trunkline.admin import v1 as admin
from trunkline.v1 import inference_service_pb2
from trunkline_server.app import serve
from trunkline_server.catalogue.extensions import provider_rows
from trunkline_server.catalogue.models import CAPABILITIES
from trunkline_server.catalogue.rows import ProviderRow
from trunkline_server.engine.needs import CHARS_PER_TOKEN, TOKENS_PER_MEDIA_PART
from trunkline_server.errors import CODES, TrunklineError
from trunkline_server.privacy.examiner import MOST_AT_ONCE
from trunkline_server.providers.codec import (
    OPTIONAL_FACULTIES,
    Codec,
    CodecTarget,
    faculties,
)
from trunkline_server.providers.dialects import DIALECTS
from trunkline_server.routing import draws, samples
from trunkline_server.routing.snapshot import AttemptPolicy, HedgePolicy
from trunkline_server.rpc.validation import routing as routing_checks
from trunkline_server.settings import (
    BreakerSettings,
    LabelSettings,
    RetryBudgetSettings,
    ServerSettings,
    parse,
)
from trunkline_server.settings.privacy import DEFAULT_LABELS, DETECTIONS
from trunkline_server.settings.routing import STRATEGIES
from trunkline_server.settings.watch import ConfigWatcher
from trunkline_server.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "server" / "trunkline_server"
README = (ROOT / "README.md").read_text("utf-8")
DEPLOY = (ROOT / "deploy" / "README.md").read_text("utf-8")


def rows_under(*header: str) -> list[list[str]]:
    """The cells of the one table of the README with this header, Markdown's quotes removed."""
    wanted = "| " + " | ".join(header) + " |\n"
    assert README.count(wanted) == 1, wanted
    table = README.partition(wanted)[2].partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


def column(number: int, *header: str) -> list[str]:
    return [row[number].strip("`") for row in rows_under(*header)]


def test_methods() -> None:
    service = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"]
    assert column(0, "method", "does") == [method.name for method in service.methods]


def test_services_of_the_control_plane() -> None:
    told = re.findall(r"`(\w+)`", " ".join(row[0] for row in rows_under("service", "manages")))
    names = [path.name for path in (ROOT / "proto/trunkline/admin/v1").glob("*_service.proto")]
    found = ["".join(map(str.title, name.removesuffix(".proto").split("_"))) for name in names]
    assert sorted(told) == sorted(found)


def test_errors() -> None:
    header = ("reason", "gRPC code", "when", "details beside ErrorInfo", "the caller should")
    told = {row[0]: row[1] for row in rows_under(*header)}
    assert told == {
        v1.ErrorReason.Name(reason).removeprefix("ERROR_REASON_"): code.name
        for reason, code in CODES.items()
    }
    assert len(told) == len(v1.ErrorReason.values()) - 1


def test_exclusions() -> None:
    names = [name.removeprefix("EXCLUSION_REASON_") for name, _ in v1.ExclusionReason.items()]
    assert sorted(column(0, "excluded by", "when")) == sorted(set(names) - {"UNSPECIFIED"})


def test_strategies() -> None:
    assert column(0, "strategy", "order") == list(STRATEGIES)


def test_capabilities() -> None:
    assert sorted(column(0, "capability", "is demanded when")) == sorted(CAPABILITIES)


def test_metrics() -> None:
    told = {row[0].strip("`"): row[1] for row in rows_under("metric", "labels", "counts")}
    registered = {}
    metrics = Metrics(CollectorRegistry())
    for collector in vars(metrics).values():
        if collector is metrics.batches:
            continue
        (family,) = collector.describe()
        name = f"{family.name}_total" if family.type == "counter" else family.name
        registered[name] = collector
    assert sorted(told) == sorted(registered)
    for name, labels in told.items():
        if labels:
            registered[name].labels(**dict.fromkeys(labels.split(", "), "x"))
        else:
            with pytest.raises(ValueError, match="No label names"):
                registered[name].labels()


def test_server_defaults() -> None:
    told = {}
    for left, value, right, other in rows_under("key", "default", "key", "default"):
        told[left.strip("`")] = value.strip("`")
        if right:
            told[right.strip("`")] = other.strip("`")
    assert sorted([*told, "tls"]) == sorted(row.name for row in fields(ServerSettings))
    lines = "\n".join(f"  {key}: {value}" for key, value in told.items())
    text = f"server:\n{lines}\nproviders: {{p: {{dialect: openai, base_url: http://a}}}}\n"
    assert parse(text, "README.md", {}).server == ServerSettings()


def test_numbers_in_sentences_are_those_of_the_code() -> None:
    breaker, budget = BreakerSettings(), RetryBudgetSettings()
    attempts, hedge = AttemptPolicy(), HedgePolicy()
    watched = inspect.signature(ConfigWatcher).parameters["interval"].default
    assert (CHARS_PER_TOKEN, watched, serve._KILL_MARGIN) == (4, 1, 5)
    assert "`server.drain_notice`, `server.drain_timeout` and five seconds" in DEPLOY
    text = " ".join(README.split())
    for phrase in (
        f"at four characters a token and {TOKENS_PER_MEDIA_PART} tokens for an image",
        f"compare all of up to {draws.SCORE_ALL} deployments",
        f"a random sample of {draws.SAMPLE} of more",
        f"once {samples._MIN_SAMPLES} are known",
        f"the same for 1 to {routing_checks._MAX_BATCH:,} calls",
        "is looked at each second",
        "`drain_notice` later no new connection is taken",
        f"averages that forget in {breaker.averaging_time:g} s",
        f"{breaker.consecutive_failures} failures in a row",
        f"at least {breaker.min_calls} recent calls",
        f"at most {attempts.retries} time (`retries`)",
        f"doubles from {attempts.backoff_base:g} s to {attempts.backoff_max:g} s",
        f"at most {budget.ratio:.0%} of the calls".replace("%", " %"),
        f"plus {budget.min_per_second:g} a second",
        f"longer than {hedge.percentile:.0%} of".replace("%", " %"),
    ):
        assert phrase in text, phrase
    assert breaker.error_rate == 0.5  # "half of"


PROVIDERS = ("kind", "dialect", "base URL", "key in", "variables", "regions", "takes", "proven by")


def test_kinds() -> None:
    told = {row[0].strip("`"): [cell.replace("`", "") for cell in row[1:7]] for row in kind_rows()}
    assert told == {
        name: [
            row.dialect,
            row.base_url,
            f"auth.{row.auth.cloud.name}" if row.auth.cloud else row.auth.header,
            ", ".join(row.env),
            ", ".join(filter(None, [row.region, *row.base_urls])),
            ", ".join(modalities(name, row)),
        ]
        for name, row in provider_rows().items()
    }


def kind_rows() -> list[list[str]]:
    return rows_under(*PROVIDERS)


def modalities(kind: str, row: ProviderRow) -> list[str]:
    """What calls of a kind can carry: what its dialect can send under the row's flags, less what
    none of its own models in the catalogue can do."""
    target = CodecTarget("owner/a-model", 1000, row.flags)
    codec = DIALECTS[row.dialect]
    sent = [what for what in ("text", *PARTS) if sends(codec, target, what)]
    sections = yaml.safe_load((SERVER / "catalogue" / "models.yaml").read_text("utf-8"))
    if kind not in sections:
        return sent
    able = {able for entry in sections[kind] for able in entry.get("capabilities", ())}
    words = {"text": "chat", "image": "vision", "audio": "audio", "file": "file"}
    beside = {
        "embedding": "embeddings",
        "rerank": "rerank",
        "image_generation": "images made",
        "transcription": "transcripts",
        "speech": "speech",
    }
    lacks = OPTIONAL_FACULTIES - faculties(codec)
    return [
        *(what for what in sent if words[what] in able),
        *(word for name, word in beside.items() if name in able - lacks),
    ]


def test_how_kinds_were_proven() -> None:
    """Golden requests by the row's flags, and the recorded exchanges with the row's host."""
    recorded = Counter(exchange.host.partition(":443")[0] for exchange in exchanges())
    cases = {path.stem for path in (ROOT / "tests/golden").glob("*/requests/row_*.json")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"].values()
    installed = [*project["dependency-groups"]["dev"], *chain.from_iterable(extras)]
    for name, row in provider_rows().items():
        (told,) = (cells[7] for cells in kind_rows() if cells[0] == f"`{name}`")
        host = urlsplit(row.base_url).netloc
        if len(exchanges()) == 3589:
            number = re.match(r"([\d,]+) recorded", told)
            # Whose server a recorded localhost was is not told.
            local = host.startswith(("localhost:", "127.0.0.1:"))
            found = 0 if local else sum(recorded[each] for each in recorded if fits(host, each))
            assert (int(number[1].replace(",", "")) if number else 0) == found, name
        assert ("golden" in told) == (f"row_{name}" in cases or row.dialect == name), name
        for package in re.findall(r"`([\w-]+)`", told):
            assert any(line.startswith(package) for line in installed), package


def fits(pattern: str, host: str) -> bool:
    """Whether a host is one of those that a row's URL is of, its placeholders being any."""
    wanted = "[a-z0-9-]+".join(map(re.escape, re.split(r"\{[a-z]+\}", pattern)))
    return re.fullmatch(wanted, host) is not None


def test_dialects() -> None:
    header = ("image", "audio", "file", "tools", "JSON schema", "embeddings")
    told = {
        row[0].strip("`"): dict(zip(header, row[2:], strict=True))
        for row in rows_under("dialect", "vendor's API", *header)
    }
    assert told == {
        name: {what: "yes" if carries(name, what) else "no" for what in header} for name in DIALECTS
    }


def test_corpus_figures() -> None:
    """Counts only: that all of them but the listed ones are read without loss is tested there."""
    if len(exchanges()) != 3589:
        pytest.skip("the reference data is another set than the one that the README tells of")
    header = ("dialect", "recorded answers", "read without loss", "of these streamed", "printed by")
    told = {
        row[0].partition(",")[0].strip("`"): [
            int(re.split(r"[ ;]|, ", cell)[0].replace(",", "")) for cell in row[1:4]
        ]
        for row in rows_under(*header)
    }
    openai = [row for row in test_openai.recordings() if row.status == 200]
    responses = [row for row in test_responses.recordings() if row.status == 200]
    anthropic = [row for row in test_anthropic.recordings() if row.status == 200]
    gemini = [row for row in test_gemini.recordings() if row.status == 200 and row.kind != "array"]
    bedrock = [row for row in test_bedrock.recordings() if row.status == 200 and row.kind]
    assert told == {
        "openai": figures(openai, test_openai.EXCEPTIONS, {"stream"}),
        "openai_responses": figures(
            responses,
            {*test_responses.EXCEPTIONS, test_responses.CONTRADICTORY},
            {"stream"},
        ),
        "anthropic": figures(anthropic, test_anthropic.EXCEPTIONS, {"sse", "frames"}),
        "gemini": figures(gemini, test_gemini.EXCEPTIONS, {"sse"}),
        "bedrock": figures(bedrock, test_bedrock.EXCEPTIONS, {"frames"}),
        "cohere": figures(test_cohere.recordings(), (), {"stream"}),
    }
    assert f"`openai`, {len({row.host for row in openai})} hosts" in README


def test_labels() -> None:
    told = [name.strip() for cell in column(0, "of a label", "demands") for name in cell.split(",")]
    assert [name.strip("`") for name in told] == [row.name for row in fields(LabelSettings)]
    named = [label.name for label in DEFAULT_LABELS]
    assert "has four labels: `public`" in " ".join(README.split())
    assert all(f"`{name}`" in README for name in named)
    assert len(named) == 4


def test_types_of_personal_data() -> None:
    """The figures are exact, but only of the reference data that the README tells of."""
    rows = rows_under("type", "found by", "labelled", "precision", "recall")
    told = {row[0].strip("`"): row[2:] for row in rows}
    assert sorted(told) == sorted(DETECTIONS)
    assert f"in a thread for prompts of more than {MOST_AT_ONCE // 1024} KiB" in " ".join(
        README.split()
    )
    labelled = read_jsonl(corpus_dir() / "pii" / "presidio_synth_v2.jsonl.gz")
    characters = sum(len(record["text"]) for record in labelled)
    if (characters, sum(map(len, pii_figures.clean_texts()))) != (126_737, 5_314_586):
        pytest.skip("the reference data is another set than the one that the README tells of")
    figures = pii_figures.labelled_figures()
    assert told == {
        name: [
            f"{tally.labelled}",
            f"{tally.precision(tally.exact):.3f}",
            f"{tally.recall(tally.exact):.3f}",
        ]
        if (tally := figures.get(name)) is not None and tally.labelled
        else ["", "", ""]
        for name in told
    }
    alarms = pii_figures.false_alarms()
    loud = pii_figures.false_alarms("llmrouter")
    text = " ".join(README.split())
    assert f"{round(alarms.words, -3):,} words, there are {len(alarms.found)} finds" in text
    assert f"{len(loud.found)} of them in one of five collections" in text
    assert f"have one in {round(alarms.words - loud.words, -3):,} words" in text
    assert len(alarms.found) == len(loud.found) + 1


class Recording(Protocol):
    """What the recordings of every dialect have."""

    @property
    def origin(self) -> str: ...
    @property
    def kind(self) -> str: ...


def figures(answers: Sequence[Recording], listed: Container[str], kinds: Set[str]) -> list[int]:
    """How many answers there are, how many are not listed as exceptions, and how many of those
    were streamed."""
    read = [row for row in answers if row.origin not in listed]
    return [len(answers), len(read), sum(row.kind in kinds for row in read)]


def test_rooms() -> None:
    rooms = {path.name for path in SERVER.iterdir() if (path / "__init__.py").exists()}
    folders = column(0, "folder", "holds")
    told = [Path(name).name for name in folders if name.startswith("server/")]
    assert all((ROOT / name).is_dir() for name in folders if "," not in name)
    assert sorted(told) == sorted(rooms)


def test_log_lines_are_those_of_the_code() -> None:
    source = "".join(path.read_text("utf-8") for path in SERVER.rglob("*.py"))
    seen = " ".join(row[1] for row in rows_under("what happens", "what an operator sees"))
    events = [text for text in re.findall(r"`([^`]+)`", seen) if " " in text]
    assert len(events) > 6
    assert [text for text in events if f'"{text}"' not in source] == []


def test_every_field_of_a_usage_event_has_a_place() -> None:
    rows = rows_under("of each call and attempt", "fields")
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row[1])]
    assert sorted(named) == sorted(field.name for field in admin.UsageEvent.DESCRIPTOR.fields)


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"`make ([\w-]+)`", README))
    assert {"run", "test", "check", "generate"} <= targets
    for target in targets:
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target


PARTS = {
    "image": v1.Part(image=v1.Image(data=b"\x89PNG\r\n\x1a\n", media_type="image/png")),
    "audio": v1.Part(audio=v1.Audio(data=b"RIFF", media_type="audio/wav")),
    "file": v1.Part(file=v1.File(data=b"%PDF", media_type="application/pdf", filename="a.pdf")),
}


def carries(dialect: str, what: str) -> bool:
    """Whether a codec takes such a request, its flags being the dialect's own."""
    # Bedrock's models differ in how vectors are asked for, and in their own bodies.
    flags: dict[str, str | int | bool] = {"embed_as": "titan", "body": "claude"}
    target = CodecTarget("owner/a-model", 1000, flags)
    return sends(DIALECTS[dialect], target, what)


def sends(codec: Codec, target: CodecTarget, what: str) -> bool:
    """Whether a codec takes such a request to such a target."""
    request = v1.GenerateRequest(
        messages=[v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text="Look.")])]
    )
    if what in PARTS:
        request.messages[0].parts.append(PARTS[what])
    elif what == "tools":
        request.tools.add(name="look")
    elif what == "JSON schema":
        request.response_format.json_schema.schema_json = '{"type": "object"}'
    try:
        if what == "embeddings":
            codec.encode_embed(v1.EmbedRequest(inputs=["a"]), target)
        else:
            codec.encode_generate(request, target, stream=False)
    except TrunklineError:
        return False
    return True
