"""Drives TensorZero's embedded gateway, which has no server of its own in its package.

It runs in TensorZero's virtual environment, so it imports nothing of the bench. It takes one
JSON line over TCP, {"calls", "concurrency", "prompt"}, makes the calls, and answers with one
JSON line, {"ok", "errors", "seconds", "latencies_ms"}.

usage: python tensorzero_driver.py HOST:PORT CONFIG
"""

import asyncio
import importlib
import json
import sys
import time
from collections import Counter
from typing import Any


async def run(gateway: Any, order: dict[str, Any]) -> dict[str, Any]:
    """Makes the calls of one order."""
    left = iter(range(order["calls"]))
    latencies: list[float] = []
    errors: Counter[str] = Counter()
    messages = [{"role": "user", "content": order["prompt"]}]

    async def caller() -> None:
        for _ in left:
            begun = time.perf_counter()
            try:
                await gateway.inference(
                    model_name="bench",
                    input={"system": "Answer in one sentence.", "messages": messages},
                    params={"chat_completion": {"max_tokens": 256, "temperature": 0.0}},
                )
            except Exception as error:  # noqa: BLE001 - whatever it raises is counted and told
                errors[f"{type(error).__name__}: {error}"[:200]] += 1
            else:
                latencies.append((time.perf_counter() - begun) * 1000)

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(order["concurrency"])))
    seconds = time.perf_counter() - begun
    return {
        "ok": len(latencies),
        "errors": errors,
        "seconds": seconds,
        "latencies_ms": sorted(latencies),
    }


async def main(address: str, config: str) -> None:
    """Serves orders until it is killed."""
    # Not among the packages of this repository: it is installed beside this program only.
    tensorzero = importlib.import_module("tensorzero")
    gateway = await tensorzero.AsyncTensorZeroGateway.build_embedded(config_file=config)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if line := await reader.readline():
            report = await run(gateway, json.loads(line))
            writer.write(json.dumps(report).encode() + b"\n")
            await writer.drain()
        writer.close()

    host, _, port = address.rpartition(":")
    server = await asyncio.start_server(serve, host, int(port))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
