"""Runs the simulated providers: `python -m trunkline_server.simulator --listen HOST:PORT`."""

import argparse
import asyncio
import signal
import sys

import uvloop

from trunkline_server.simulator.app import Simulator
from trunkline_server.simulator.script import KEYS, Script


def parse_address(text: str) -> tuple[str, int]:
    """The host and port of `HOST:PORT`; an IPv6 host stands in brackets."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trunkline_server.simulator",
        description="Serves simulated OpenAI, Anthropic and Gemini APIs.",
    )
    parser.add_argument(
        "--listen",
        type=parse_address,
        default="127.0.0.1:18080",
        metavar="HOST:PORT",
        help="where to listen (default: %(default)s)",
    )
    parser.add_argument(
        "--latency-ms",
        type=KEYS["latency_ms"],
        default=0.0,
        metavar="MS",
        help="time before every answer (default: %(default)s)",
    )
    parser.add_argument(
        "--chunk-ms",
        type=KEYS["chunk_ms"],
        default=0.0,
        metavar="MS",
        help="time between chunks of streams (default: %(default)s)",
    )
    parser.add_argument(
        "--chunk-tokens",
        type=KEYS["chunk_tokens"],
        default=4,
        metavar="N",
        help="tokens in a chunk (default: %(default)s)",
    )
    parser.add_argument(
        "--tokens",
        type=KEYS["tokens"],
        default=0,
        metavar="N",
        help="tokens in every answer's text (default: as it comes)",
    )
    parser.add_argument(
        "--rpm",
        type=KEYS["rpm"],
        default=0,
        metavar="N",
        help="requests per minute and API key (default: no limit)",
    )
    return parser  # fmt: skip


async def serve(arguments: argparse.Namespace) -> None:
    """Serves until SIGINT or SIGTERM."""
    defaults = Script(
        latency_ms=arguments.latency_ms,
        chunk_ms=arguments.chunk_ms,
        chunk_tokens=arguments.chunk_tokens,
        tokens=arguments.tokens,
        rpm=arguments.rpm,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    host, port = arguments.listen
    async with Simulator(host, port, defaults=defaults) as simulator:
        sys.stdout.write(f"simulated providers listen on {simulator.url}\n")
        sys.stdout.flush()
        await stop.wait()


def main() -> None:
    uvloop.run(serve(build_parser().parse_args()))


if __name__ == "__main__":
    main()
