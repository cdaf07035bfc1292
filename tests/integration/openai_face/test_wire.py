"""The OpenAI-compatible face on the wire: curl, clients that leave, limits, bounds, TLS, drain."""

import asyncio
import hashlib
import json
import shutil
import ssl
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509

from tests.adversity.test_providers import FINISH, STREAM_HEAD, delta
from tests.integration.openai_face.conftest import KEY
from tests.support.authority import Authority, Leaf
from tests.support.fault_server import hang, read_request, response, send
from tests.support.ports import free_port
from tests.support.process import router_process
from tests.support.router import PATIENCE, Router, openai_at, routed, router
from tests.support.servers import missing
from trunkline_server.simulator.app import Simulator

ON = "127.0.0.1:0"
CHAT: dict[str, Any] = {"model": "large", "messages": [{"role": "user", "content": "Hello"}]}
STREAMED = CHAT | {"stream": True}


async def curl(trunkline: Router, path: str, body: Any = None, *options: str) -> tuple[int, str]:
    """What curl prints of an answer, and its status."""
    program = shutil.which("curl")
    if program is None:
        missing("curl")
    command = [program, "-sS", "--no-buffer", "-w", "\n%{http_code}", *options]
    if body is not None:
        command += ["-H", "content-type: application/json", "-d", json.dumps(body)]
    process = await asyncio.create_subprocess_exec(
        *command, trunkline.openai_url + path, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    text, _, status = printed.decode().rpartition("\n")
    return int(status), text


async def test_a_session_with_curl(trunkline: Router) -> None:
    bearer = ("-H", f"authorization: Bearer {KEY}")
    asked = {"model": "openai", "messages": [{"role": "user", "content": "Why?"}]}
    status, text = await curl(trunkline, "/chat/completions", asked, *bearer)
    assert status == 200
    assert json.loads(text)["choices"][0]["message"]["role"] == "assistant"

    status, text = await curl(
        trunkline, "/chat/completions", asked | {"stream": True}, *bearer, "-D", "-"
    )
    assert status == 200
    head, _, events = text.partition("\r\n\r\n")
    assert "content-type: text/event-stream" in head.lower()
    assert "x-request-id:" in head.lower()
    lines = [line for line in events.splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: {") for line in lines[:-1])

    status, text = await curl(trunkline, "/embeddings", {"model": "embed", "input": "a"}, *bearer)
    assert (status, json.loads(text)["object"]) == (200, "list")
    status, text = await curl(trunkline, "/models", None, *bearer)
    assert (status, len(json.loads(text)["data"])) == (200, 4)
    status, text = await curl(trunkline, "/models", None)
    assert (status, json.loads(text)["error"]["code"]) == (401, "invalid_api_key")
    status, text = await curl(trunkline, "/completions", {"prompt": "x"}, *bearer)
    assert (status, json.loads(text)["error"]["code"]) == (404, "unknown_url")
    status, text = await curl(trunkline, "/chat/completions", None, *bearer)
    assert (status, json.loads(text)["error"]["type"]) == (405, "invalid_request_error")


class TestClientsThatLeave:
    """The upstream sees the close within 100 ms of loop time, as with gRPC."""

    WITHIN = 0.1

    @pytest.mark.parametrize("asked", [CHAT, STREAMED], ids=["unary", "streamed"])
    async def test_before_the_first_byte(self, asked: Any) -> None:
        async with (
            routed([read_request, hang], openai_listen=ON) as (trunkline, servers),
            aiohttp.ClientSession() as session,
        ):
            url = f"{trunkline.openai_url}/chat/completions"
            call = asyncio.ensure_future(session.post(url, json=asked))
            await servers[0].until(lambda: len(servers[0].requests) == 1)
            left_at = asyncio.get_running_loop().time()
            call.cancel()
            assert await servers[0].closed_at() - left_at < self.WITHIN
            with pytest.raises(asyncio.CancelledError):
                await call

    async def test_in_the_middle_of_a_stream(self) -> None:
        script = [read_request, send(STREAM_HEAD + delta("one")), hang]
        async with (
            routed(script, openai_listen=ON) as (trunkline, servers),
            aiohttp.ClientSession() as session,
        ):
            answer = await session.post(f"{trunkline.openai_url}/chat/completions", json=STREAMED)
            assert answer.status == 200
            while b'"one"' not in await answer.content.readline():
                pass
            left_at = asyncio.get_running_loop().time()
            answer.close()
            assert await servers[0].closed_at() - left_at < self.WITHIN
        label = {"operation": "stream_generate", "caller": "anonymous"}
        assert trunkline.metric("trunkline_calls_total", **label, reason="cancelled") == 1


async def test_a_limit_says_when_to_come_back() -> None:
    busy = response(
        b'{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}',
        "retry-after: 7",
        status="429 Too Many Requests",
    )
    async with (
        routed([read_request, send(busy)], openai_listen=ON) as (trunkline, _),
        aiohttp.ClientSession() as session,
        session.post(f"{trunkline.openai_url}/chat/completions", json=CHAT) as answer,
    ):
        assert answer.status == 429
        assert answer.headers["retry-after"] == "7"
        assert answer.headers["retry-after-ms"] == "7000"
        assert (await answer.json())["error"]["reason"] == "ERROR_REASON_RATE_LIMIT"


async def test_limits_of_the_router_hold_here_and_over_grpc_together() -> None:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    limits = (
        f"keys: [{{name: caller, hash: 'sha256:{digest}'}}]\n"
        "limits: {few: {measure: requests, scope: key, amount: 2, per: hour, burst: 2}}\n"
    )
    async with Simulator(port=0) as simulator:
        config = openai_at(f"{simulator.url}/openai") + "\n" + limits
        config = config.replace("gpt-test", "sim-large")
        async with (
            router(config, openai_listen=ON) as trunkline,
            aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session,
        ):
            found = []
            for _ in range(3):
                async with session.post(
                    f"{trunkline.openai_url}/chat/completions", json=CHAT
                ) as answer:
                    found.append((answer.status, answer.headers.get("retry-after", "")))
            assert [status for status, _ in found] == [200, 200, 429]
            assert int(found[-1][1]) > 0


async def test_a_body_that_is_too_large_is_refused() -> None:
    async with (
        router(
            openai_at("http://127.0.0.1:9"), openai_listen=ON, max_request_bytes=2048
        ) as trunkline,
        aiohttp.ClientSession() as session,
        session.post(
            f"{trunkline.openai_url}/chat/completions", json=CHAT | {"user": "x" * 4096}
        ) as answer,
    ):
        assert answer.status == 400
        assert "larger than" in (await answer.json())["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b'{"model": "large"}', b"\xff"])
async def test_a_body_that_is_no_request_is_refused(body: bytes) -> None:
    async with (
        router(openai_at("http://127.0.0.1:9"), openai_listen=ON) as trunkline,
        aiohttp.ClientSession() as session,
        session.post(f"{trunkline.openai_url}/chat/completions", data=body) as answer,
    ):
        assert answer.status == 400
        assert (await answer.json())["error"]["type"] == "invalid_request_error"
        refused = {"operation": "generate", "reason": "invalid_request"}
        # What is refused here is counted as what gRPC's door refuses.
        trunkline.worker._metrics.batches.flush()
        assert trunkline.metric("trunkline_calls_not_admitted_total", **refused) == 1


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async with router(openai_at("http://127.0.0.1:9"), openai_listen=ON) as trunkline:
        trunkline.worker._openai._face._body_seconds = 0.0
        reader, writer = await asyncio.open_connection("127.0.0.1", trunkline.worker.openai_port)
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n"
        writer.write(head.encode() + b'{"a"')
        async with asyncio.timeout(PATIENCE):
            assert await reader.readline() == b"HTTP/1.1 408 Request Timeout\r\n"
        writer.close()
        await writer.wait_closed()


async def test_a_drain_lets_a_stream_end() -> None:
    released = asyncio.Event()

    async def rest(connection: Any) -> None:
        await released.wait()
        await connection.send(delta("two") + FINISH)

    script = [read_request, send(STREAM_HEAD + delta("one")), rest]
    async with (
        routed(script, openai_listen=ON, drain_timeout="20s") as (trunkline, _),
        aiohttp.ClientSession() as session,
    ):
        answer = await session.post(f"{trunkline.openai_url}/chat/completions", json=STREAMED)
        while b'"one"' not in await answer.content.readline():
            pass
        draining = asyncio.create_task(trunkline.worker._openai.stop(0.0))
        # It has begun once it waits for the stream.
        for _ in range(10):
            await asyncio.sleep(0)
        assert not draining.done()
        released.set()
        text = (await answer.read()).decode()
        assert '"two"' in text
        assert text.endswith("data: [DONE]\n\n")
        await draining


async def test_tls_takes_up_renewed_certificates(tmp_path: Path) -> None:
    authority = Authority()

    def put(subject: str) -> None:
        leaf: Leaf = authority.issue(x509.IPAddress(ip_address("127.0.0.1")), subject=subject)
        (tmp_path / "server.pem").write_bytes(leaf.certificate)
        (tmp_path / "server.key").write_bytes(leaf.key)

    put("the first")
    tls = f"{{cert: {tmp_path}/server.pem, key: {tmp_path}/server.key}}"
    trusting = ssl.create_default_context(cadata=authority.certificate.decode())
    async with router(openai_at("http://127.0.0.1:9"), openai_listen=ON, tls=tls) as trunkline:

        async def subject() -> Any:
            port = trunkline.worker.openai_port
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
            shown = writer.get_extra_info("peercert")
            writer.close()
            await writer.wait_closed()
            return dict(pair for row in shown["subject"] for pair in row)["commonName"]

        assert await subject() == "the first"
        put("the second")
        assert await subject() == "the second"
        (tmp_path / "server.pem").write_bytes(b"no certificate")
        assert await subject() == "the second"


async def test_workers_share_the_port(tmp_path: Path) -> None:
    port = free_port()
    async with (
        router_process("--workers", "2", "--openai-listen", f"127.0.0.1:{port}") as process,
        aiohttp.ClientSession() as session,
    ):
        asked = CHAT | {"model": "sim-large"}
        for _ in range(4):
            async with session.post(
                f"http://127.0.0.1:{port}/v1/chat/completions", json=asked
            ) as answer:
                assert answer.status == 200, await answer.text()
        assert process.process.returncode is None
