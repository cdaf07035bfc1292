"""A client that shows an HTTP answer's bytes as they came, and how the connection ended."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

KEYS = {
    "openai": {"authorization": "Bearer k"},
    "anthropic": {"x-api-key": "k", "anthropic-version": "2023-06-01"},
    "gemini": {"x-goog-api-key": "k"},
}


@dataclass(frozen=True)
class Received:
    """`end` is "eof" for an orderly end, "reset" for a TCP reset, "open" for neither."""

    raw: bytes
    end: str

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1])

    @property
    def headers(self) -> dict[str, str]:
        lines = self.raw.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
        pairs = (line.partition(": ") for line in lines)
        return {name.lower(): value for name, _, value in pairs}

    @property
    def body(self) -> bytes:
        """The body as it stands on the wire, chunk sizes included."""
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> bytes:
        """The body without its chunk sizes; raises AssertionError when it does not end."""
        text, rest, size = b"", self.body, -1
        while size != 0:
            head, line_end, rest = rest.partition(b"\r\n")
            assert line_end
            size = int(head, 16)
            assert len(rest) >= size + 2
            text, rest = text + rest[:size], rest[size + 2 :]
        assert not rest
        return text


def request_bytes(
    path: str, body: object, headers: dict[str, str], *, method: str = "POST"
) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "host: simulator", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += ["content-type: application/json", f"content-length: {len(data)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


async def exchange(
    url: str,
    path: str,
    body: object = None,
    *,
    headers: dict[str, str] | None = None,
    method: str = "POST",
    patience: float = 10.0,
) -> Received:
    """Sends one request and reads until the connection ends, or for `patience` seconds."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    if headers is None:
        headers = KEYS[path.split("/")[1]]
    raw, end = b"", "open"
    try:
        writer.write(request_bytes(path, body, headers, method=method))
        async with asyncio.timeout(patience):
            while data := await reader.read(65536):
                raw += data
            end = "eof"
    except TimeoutError:
        end = "open"
    except ConnectionResetError:
        end = "reset"
    finally:
        writer.close()
    return Received(raw, end)
