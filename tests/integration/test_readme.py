"""README.md and deploy/ are tried: their commands run, their configurations are read."""

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import grpc
import pytest
import pytest_asyncio
import structlog
import yaml
from google.protobuf.descriptor import MethodDescriptor
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.fault_server import FaultServer, hang, read_request
from tests.support.mortal import mortal
from tests.support.process import RouterProcess, router_process
from tests.support.router import (
    ENVIRONMENT,
    PATIENCE,
    ask,
    channel_to,
    openai_at,
    price_book,
    reason,
    router,
)
from trunkline import v1
from trunkline.v1 import inference_service_pb2
from trunkline.v1.inference_service_pb2_grpc import InferenceServiceStub
from trunkline_server.catalogue.compile import CompiledTable, compile_snapshot
from trunkline_server.catalogue.known import known
from trunkline_server.routing.snapshot import AttemptPolicy
from trunkline_server.settings import (
    PrefixAffinitySettings,
    RoutingSettings,
    Settings,
    parse,
)

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
DEPLOY = (ROOT / "deploy" / "README.md").read_text("utf-8")
EXAMPLE = ROOT / "deploy" / "trunkline.example.yaml"
SERVICE = inference_service_pb2.DESCRIPTOR.services_by_name["InferenceService"]
NO_KEYS = dict.fromkeys(
    ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"), ""
)
BLOCK_SECONDS = 60.0
ADMIN_KEY = "tk_the-administrator-of-the-readme"
# How a block begins that is a file of its own; the first of those that are one has a comment.
OF_ITS_OWN = "providers:\n"
# A fixed time, so that a price that changes does not change a test.
NOW = 1_790_000_000.0


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, and the `text` block that follows it, if any."""

    line: int
    language: str
    text: str
    output: str | None


def blocks() -> Iterator[Block]:
    found = list(re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL))
    for place, match in enumerate(found):
        after = found[place + 1] if place + 1 < len(found) else None
        follows = (
            after is not None
            and after[1] == "text"
            and not README[match.end() : after.start()].strip()
        )
        line = README.count("\n", 0, match.start()) + 1
        yield Block(line, match[1], match[2], after[2] if after and follows else None)


BLOCKS = tuple(blocks())
RUNNABLE = [block for block in BLOCKS if block.language in {"sh", "python"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncGenerator[RouterProcess]:
    """One router with simulated providers for all blocks."""
    async with router_process(env=NO_KEYS, openai=True) as router:
        yield router


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def controlled(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RouterProcess]:
    """One router by the block that configures the control plane, with a provider beside it."""
    (text,) = [each.text for each in BLOCKS if each.language == "yaml" and "admin:" in each.text]
    path = tmp_path_factory.mktemp("controlled") / "trunkline.yaml"
    digest = hashlib.sha256(ADMIN_KEY.encode()).hexdigest()
    provider = "providers: {local: {dialect: openai, base_url: 'http://127.0.0.1:9/v1'}}\n"
    deployment = "deployments: [{provider: local, model: m, price: {input: '1'}}]\n"
    path.write_text(text.replace("1" * 64, digest) + provider + deployment)
    async with router_process("--config", str(path), control=True) as router:
        yield router


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("block", RUNNABLE, ids=lambda block: f"line{block.line}")
async def test_block(block: Block, served: RouterProcess, controlled: RouterProcess) -> None:
    """What a `sh` or `python` block prints is what the `text` block after it shows."""
    for tool in re.findall(r"\.tools/bin/(\w+)", block.text):
        await need_tool(tool)
    text = block.text.replace("127.0.0.1:50051", served.address)
    text = text.replace("127.0.0.1:9464", served.ops)
    text = text.replace("127.0.0.1:50052", controlled.control)
    text = text.replace("127.0.0.1:8080", served.openai)
    text = text.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    if block.language == "python":
        command = [sys.executable, "-c", text]
    else:
        command = ["bash", "-euo", "pipefail", "-c", text]
    status, printed = await run(
        command, {"TRUNKLINE_TARGET": served.address, "ADMIN_KEY": ADMIN_KEY}
    )
    assert status == 0, printed
    if block.output is None:
        assert_expected(block, printed)
    else:
        assert masked(printed) == masked(block.output)


def test_every_output_belongs_to_a_command() -> None:
    outputs = [block for block in BLOCKS if block.language == "text"]
    assert len(outputs) == sum(block.output is not None for block in RUNNABLE) > 0
    assert {block.language for block in BLOCKS} == {"sh", "python", "text", "yaml"}


def assert_expected(block: Block, printed: str) -> None:
    """What commands print whose output the README does not show."""
    if "trunkline.admin.v1" in block.text:
        answers = re.findall(r'"amount(?:Nanos)?": "([^"]+)"|"action": "([^"]+)"', printed)
        assert [amount or action for amount, action in answers] == [
            *("25.00", "30.00"),
            *("admin.budgets.update", "admin.budgets.create"),
        ], printed
        assert '"deployment": "local-m"' in printed
    elif "grpcurl" in block.text:
        answer, end = json.JSONDecoder().raw_decode(printed)
        assert len(answer["embeddings"]) == 1
        assert len(answer["embeddings"][0]["values"]) == 2
        for method in SERVICE.methods:
            assert f"rpc {method.name} (" in printed[end:]
    elif "ghz" in block.text:
        assert re.search(r"\[OK\]\s+500 responses", printed), printed
        assert "Error distribution" not in printed
    elif "/metrics" in block.text:
        assert printed.startswith('{"status": "ready"}')
        assert "\ntrunkline_calls_in_flight 0.0\n" in printed
    else:
        pytest.fail(f"nothing is known of what line {block.line} prints")


def masked(printed: str) -> str:
    """The output without what differs from run to run: times and the table's version, which
    the simulator's port is part of."""
    printed = re.sub(r"\b\d+ ms\b", "N ms", printed.strip())
    return re.sub(r"\b(?=[a-f]*[0-9])[0-9a-f]{12}\b", "VERSION", printed)


async def run(command: Sequence[str], env: dict[str, str]) -> tuple[int, str]:
    """The exit code, and standard output and error in the order in which they came."""
    process = await asyncio.create_subprocess_exec(
        *mortal(command),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **env},
    )
    try:
        async with asyncio.timeout(BLOCK_SECONDS):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def need_tool(name: str) -> None:
    """Sees that a tool of the Makefile is there: built in CI, elsewhere its lack skips."""
    path = f".tools/bin/{name}"
    if (ROOT / path).exists():
        return
    if os.environ.get("CI") != "true":
        pytest.skip(f"{path} is not installed: run 'make tools'")
    make = shutil.which("make")
    assert make is not None
    env = {"MAKEFLAGS": "", "MAKELEVEL": ""}
    process = await asyncio.create_subprocess_exec(make, path, cwd=ROOT, env={**os.environ, **env})
    assert await process.wait() == 0
    assert (ROOT / path).exists()


def environment_of(text: str) -> dict[str, str]:
    """A value for every variable that a configuration names, and for the vendors' usual ones."""
    named = re.findall(r"env:([A-Za-z_][A-Za-z0-9_]*)", text)
    return dict.fromkeys([*NO_KEYS, *named], "a-key")


def compiled(text: str, base: Path = EXAMPLE.parent) -> tuple[Settings, CompiledTable]:
    settings = parse(text, "a document", environment_of(text), known(), base=base)
    return settings, compile_snapshot(settings, price_book(), now=NOW)


class TestConfigurations:
    def test_the_blocks_of_the_readme_are_one_working_file(self) -> None:
        files = [block.text for block in BLOCKS if block.language == "yaml"]
        text = "".join(each for each in files if not each.startswith(OF_ITS_OWN))
        settings, table = compiled(text)
        assert set(settings.providers) == {"openai", "anthropic-eu", "local"}
        assert [key.name for key in settings.keys] == ["team-search"]
        assert set(table.snapshot.routes) == {"cheap"}
        # Prices come from the table, or from the file.
        assert all(row.price is not None for row in table.snapshot.deployments)

    def test_blocks_that_are_files_of_their_own_work(self) -> None:
        files = [block.text for block in BLOCKS if block.text.startswith(OF_ITS_OWN)]
        assert files
        for text in files:
            settings, _ = compiled(text)
            assert settings.providers

    def test_the_block_on_clouds_is_a_working_file(self) -> None:
        (text,) = [
            block.text for block in BLOCKS if block.text.startswith("providers:\n  bedrock:")
        ]
        settings, table = compiled(text)
        kinds = {row.kind or name for name, row in settings.providers.items()}
        assert kinds == {"azure", "bedrock", "vertex", "vertex-anthropic"}
        assert all(endpoint.cloud is not None for endpoint in table.endpoints.values())
        urls = {name: endpoint.base_url for name, endpoint in table.endpoints.items()}
        assert urls["azure"] == "https://my-resource.openai.azure.com/openai"
        assert urls["vertex"].startswith("https://europe-west4-aiplatform.googleapis.com/v1/")
        assert urls["vertex-anthropic"].startswith("https://aiplatform.googleapis.com/v1/")

    async def test_check_accepts_the_example(self) -> None:
        text = EXAMPLE.read_text("utf-8")
        command = [str(Path(sys.executable).with_name("trunkline")), "check", str(EXAMPLE)]
        named = dict.fromkeys(re.findall(r"^[^#\n]* env:([A-Z_]+)$", text, re.MULTILINE), "a-key")
        assert set(named) == {"OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"}
        status, printed = await run(command, {**NO_KEYS, **named})
        assert status == 0, printed
        assert ": OK, version " in printed
        status, printed = await run(command, NO_KEYS)
        assert status == 2
        assert all(f"environment variable {name} is" in printed for name in named)

    @pytest.fixture
    def filled_in(self, tmp_path: Path) -> tuple[str, Path]:
        """The example with every setting that it leaves out, and a folder with its files."""
        text = re.sub(r"^( *)#(?=[a-z-])", r"\1", EXAMPLE.read_text("utf-8"), flags=re.MULTILINE)
        for path in re.findall(r"\btls/[\w.-]+", text):
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text("pem")
        return text, tmp_path

    def test_the_example_shows_every_key(self, filled_in: tuple[str, Path]) -> None:
        text, _ = filled_in
        tree = yaml.safe_load(text)
        shown: dict[type, set[str]] = {}
        note_keys(tree, Settings, shown)
        assert {kind: sorted(keys) for kind, keys in shown.items()} == {
            kind: sorted(keys_of(kind)) for kind in kinds_in(Settings)
        }

    def test_what_the_example_leaves_out_is_the_default(self, filled_in: tuple[str, Path]) -> None:
        full_text, folder = filled_in
        settings, table = compiled(EXAMPLE.read_text("utf-8"))
        full, full_table = compiled(full_text, folder)
        examples = {"tls", "otlp_endpoint", "otlp_headers"}
        for section in ("server", "telemetry"):
            mine, theirs = getattr(settings, section), getattr(full, section)
            default = type(mine)()
            for row in fields(mine):
                if row.name not in examples:
                    assert getattr(theirs, row.name) == getattr(default, row.name), row.name
        # It is off; the example shows what switching it on means.
        affinity = PrefixAffinitySettings()
        assert full.routing == RoutingSettings(
            attempts=full.routing.attempts, prefix_affinity=affinity
        )
        assert policies(full_table) == policies(table)
        assert table.snapshot.models["small"].attempts == AttemptPolicy()


def policies(table: CompiledTable) -> dict[str, object]:
    """How targets are chosen and tried, by model and route; not the targets."""
    snapshot = table.snapshot
    return {
        name: (route.strategy, route.max_targets, route.balance, route.attempts)
        for name, route in {**snapshot.models, **snapshot.routes}.items()
    }


def hints_of(kind: type) -> dict[str, Any]:
    """The type of each field that is a key of the configuration."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: hint.__origin__ for name, hint in hints.items() if get_origin(hint) is Annotated}


def keys_of(kind: type) -> set[str]:
    return set(hints_of(kind))


def kinds_in(hint: Any) -> set[type]:
    """The records that a type is made of."""
    if not is_dataclass(hint):
        return set().union(*map(kinds_in, get_args(hint)))
    assert isinstance(hint, type)
    return {hint}.union(*map(kinds_in, hints_of(hint).values()))


def note_keys(node: Any, hint: Any, shown: dict[type, set[str]]) -> None:
    """Adds the keys that stand in a node to those of the record that it is read as."""
    if is_dataclass(hint) and isinstance(hint, type):
        if isinstance(node, dict):
            shown.setdefault(hint, set()).update(node)
            for name, value in node.items():
                note_keys(value, hints_of(hint)[name], shown)
    elif get_origin(hint) is dict:
        for value in node.values():
            note_keys(value, get_args(hint)[1], shown)
    elif get_origin(hint) is tuple:
        for value in node if isinstance(node, list) else ():
            note_keys(value, get_args(hint)[0], shown)
    else:
        for each in get_args(hint):
            note_keys(node, each, shown)


async def test_what_keys_guard_and_what_refusals_leave_behind() -> None:
    config = (
        "providers: {p: {kind: openai, base_url: 'http://127.0.0.1:9/v1', api_key: 'env:TEST_KEY'}}"
        f"\nkeys: [{{name: team, hash: 'sha256:{'0' * 64}'}}]\n"
    )
    with structlog.testing.capture_logs() as log:
        async with router(config) as trunkline:
            for method in SERVICE.methods:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await any_call(trunkline.channel, method)
                assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
            health = health_pb2_grpc.HealthStub(trunkline.channel)
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            channelz = channelz_pb2_grpc.ChannelzStub(trunkline.channel)
            servers = await channelz.GetServers(channelz_pb2.GetServersRequest(), timeout=PATIENCE)
            assert servers.server
            counted = [
                trunkline.metric(
                    "trunkline_calls_not_admitted_total", operation=name, reason="authentication"
                )
                for name in map(_snake, SERVICE.methods_by_name)
            ]
    methods = len(SERVICE.methods)
    assert counted == [1] * methods
    told = [line["event"] for line in log if "call" in line["event"]]
    assert told == ["call not admitted"] * methods


def _snake(name: str) -> str:
    """A method's name as metrics have it."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


async def test_a_longer_deadline_is_cut_and_reloading_changes_to_what() -> None:
    async with FaultServer([read_request, hang]) as vendor:
        config = openai_at(vendor.url)
        async with router(config) as trunkline:
            new = config + "\nserver: {default_deadline: 200ms}\n"
            trunkline.worker.reload(parse(new, "new.yaml", ENVIRONMENT, known()))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await trunkline.stub.Generate(ask(), timeout=PATIENCE)
    # Told by the router, and not by the caller's own clock.
    assert reason(caught.value) == v1.ERROR_REASON_TIMEOUT


CANARY = "quetzalcoatlus"
FAULTS = ("error-400", "error-filter", "error-context", "error-422", "error-500", "garbage")


@pytest.mark.asyncio(loop_scope="module")
async def test_the_log_never_holds_a_request_or_an_answer(served: RouterProcess) -> None:
    request = v1.GenerateRequest(
        messages=[v1.Message(role=v1.ROLE_USER, parts=[v1.Part(text=CANARY)], name=CANARY)],
        tools=[v1.Tool(name=CANARY, description=CANARY)],
        context=v1.CallContext(user_id=CANARY, labels={CANARY: CANARY}),
    )
    answers: list[str] = []
    refusals: list[str] = []
    async with channel_to(served.address) as channel:
        stub = InferenceServiceStub(channel)
        for provider in ("sim-openai", "sim-anthropic", "sim-gemini"):
            for fault in ("large", *FAULTS):
                request.model = f"{provider}/sim-{fault}"
                for options in ({}, {CANARY: CANARY}):
                    request.provider_options.Clear()
                    request.provider_options.update(options)
                    try:
                        answer = await stub.Generate(request, timeout=PATIENCE)
                        answers.append(str(answer))
                    except grpc.aio.AioRpcError as error:
                        refusals.append(str(error.details()))
    # A call that the router refuses itself is the last to be logged.
    with contextlib.suppress(grpc.aio.AioRpcError):
        async with channel_to(served.address) as channel:
            request.model = "no-such-model"
            await InferenceServiceStub(channel).Generate(request, timeout=PATIENCE)
    async with asyncio.timeout(PATIENCE), served.changed:
        while not any(line.get("model") == "no-such-model" for line in served.log):
            await served.changed.wait()
    # Answers and the vendors' refusals do hold it, or nothing would be proven.
    assert any(CANARY in text for text in answers)
    assert sum(CANARY in text for text in refusals) >= 3
    assert sum(line.get("event") == "attempt failed" for line in served.log) >= len(refusals)
    assert [line for line in served.log if CANARY in json.dumps(line)] == []


async def any_call(channel: grpc.aio.Channel, method: MethodDescriptor) -> None:
    """An empty call of a method, to its end."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    if method.server_streaming:
        stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(path)
        async for _ in stream(b"", timeout=PATIENCE):
            pass
    else:
        unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
        await unary(b"", timeout=PATIENCE)
