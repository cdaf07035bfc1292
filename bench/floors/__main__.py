"""A bare gRPC server of one kind: `python -m bench.floors KIND --listen HOST:PORT ...`.

Each serves the contract's methods, so that the same load fits it and the router, on the same
grpc.aio, uvloop and transport flags as the router has. Where a kind answers with a message,
it is a real one, prepared; where it calls the upstream, the HTTP body is prepared too.
"""

from trunkline_server.app.tuning import tune_grpc

# Before anything imports grpc.
tune_grpc()

import argparse  # noqa: E402
import asyncio  # noqa: E402
import signal  # noqa: E402
from pathlib import Path  # noqa: E402

import grpc  # noqa: E402
import uvloop  # noqa: E402

from bench.floors.kinds import KINDS, Material  # noqa: E402

SERVICE = "trunkline.v1.InferenceService"
# Answers of many vectors are larger than gRPC's default bound.
_OPTIONS = [("grpc.max_receive_message_length", 64 << 20)]


async def serve(kind: str, listen: str, material: Material) -> None:
    """Serves until told to stop."""
    server = grpc.aio.server(options=_OPTIONS)
    handlers = KINDS[kind](material)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(listen)
    await server.start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await server.stop(1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a bare gRPC server of one kind.")
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("--listen", required=True)
    parser.add_argument("--upstream", default="", help="HOST:PORT of the upstream")
    parser.add_argument("--path", default="/v1/chat/completions")
    parser.add_argument("--body", type=Path, help="the prepared request to the upstream")
    parser.add_argument("--chunks", type=int, default=100, help="for the kind 'stream'")
    parser.add_argument("--vectors", type=int, default=0, help="answer Embed with so many")
    parsed = parser.parse_args()
    material = Material(
        upstream=parsed.upstream,
        path=parsed.path,
        body=parsed.body.read_bytes() if parsed.body else b"",
        chunks=parsed.chunks,
        vectors=parsed.vectors,
    )
    uvloop.run(serve(parsed.kind, parsed.listen, material))


if __name__ == "__main__":
    main()
