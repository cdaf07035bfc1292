"""`trunkline call`: one prompt from the command line."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from google.protobuf import json_format
from google.protobuf.message import Message

from trunkline import v1
from trunkline._client import Client
from trunkline._errors import RateLimitError, TrunklineError, UnavailableError
from trunkline._options import DEFAULT_TARGET
from trunkline._record import delta_text
from trunkline._requests import text_of
from trunkline._streams import Stream

FAILED, MISUSED, INTERRUPTED = 1, 2, 130


def call(argv: Sequence[str] | None = None) -> int:
    """Sends one prompt; the answer goes to stdout, one line about it to stderr.

    Returns the exit status: 0, 1 for a failed call, 2 for misuse, 130 when interrupted.
    """
    try:
        options = _parser().parse_args(argv)
    except SystemExit as stop:  # argparse ends the program; a function returns its status.
        return stop.code if isinstance(stop.code, int) else MISUSED
    environ = dict(os.environ)
    if options.target:
        environ["TRUNKLINE_TARGET"] = options.target
    target = environ.get("TRUNKLINE_TARGET") or DEFAULT_TARGET
    try:
        request = _request(options)
        with Client.from_environment(environ) as client:
            return _run(client, request, options)
    except TrunklineError as error:
        return _fail(_explain_error(error, target), FAILED)
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            # The reader, such as `head`, has had enough. Python would complain again when
            # it flushes at exit, so stdout is pointed elsewhere.
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())
            return FAILED
        return _fail(str(error), MISUSED)
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trunkline call",
        description="Send one prompt to a router. The TRUNKLINE_* variables hold the target, "
        "the API key and TLS files.",
    )
    add = parser.add_argument
    add("prompt", nargs="?", help="the prompt; '-' or nothing reads standard input")
    add("--target", help=f"the router's address (TRUNKLINE_TARGET, else {DEFAULT_TARGET})")
    add("--model", default="", help="public model, provider/model or route:NAME; empty: any")
    add("--system", help="instructions that stand above the prompt")
    add("--max-tokens", type=int, help="the most tokens the answer may have")
    add("--timeout", type=float, help="seconds for the whole call (TRUNKLINE_TIMEOUT, else 60)")
    add(
        "--stream",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="print the answer as it is written",
    )
    add("--json", action="store_true", help="print the response, or each event, as JSON")
    add("--explain", action="store_true", help="tell how the deployment was chosen")
    return parser


def _request(options: argparse.Namespace) -> v1.GenerateRequest:
    prompt = options.prompt
    if prompt is None or prompt == "-":
        prompt = sys.stdin.read()
    if not prompt.strip():
        raise ValueError("the prompt is empty")
    request = v1.GenerateRequest(model=options.model)
    if options.system:
        request.messages.add(role=v1.ROLE_SYSTEM, parts=[v1.Part(text=options.system)])
    request.messages.add(role=v1.ROLE_USER, parts=[v1.Part(text=prompt)])
    if options.max_tokens is not None:
        request.config.max_output_tokens = options.max_tokens
    request.routing.explain = options.explain
    return request


def _run(client: Client, request: v1.GenerateRequest, options: argparse.Namespace) -> int:
    started = time.monotonic()
    if options.stream:
        with client.stream(request, timeout=options.timeout) as stream:
            _print_stream(stream, as_json=options.json)
            start = stream.start or v1.StreamStart()
            end = stream.end or v1.StreamEnd()
        provider, model, decision = start.provider, end.model or start.model, start.decision
        usage, cost = end.usage, end.cost
    else:
        response = client.generate(request, timeout=options.timeout)
        print(_json(response, indent=2) if options.json else text_of(response))
        provider, model, decision = response.provider, response.model, response.decision
        usage, cost = response.usage, response.cost
    elapsed = time.monotonic() - started
    sys.stdout.flush()
    if options.explain:
        _print_decision(decision, sys.stderr)
    print(
        f"{provider}/{model or decision.provider_model}: {usage.input_tokens} in, "
        f"{usage.output_tokens} out, {format_cost(cost)}, {elapsed * 1000:.0f} ms",
        file=sys.stderr,
    )
    return 0


def _print_stream(stream: Stream, *, as_json: bool) -> None:
    last = "\n"
    for event in stream:
        piece = _json(event) + "\n" if as_json else delta_text(event)
        if piece:
            print(piece, end="", flush=True)
            last = piece
    if not last.endswith("\n"):
        print()


def _json(message: Message, indent: int | None = None) -> str:
    return json_format.MessageToJson(message, indent=indent, preserving_proto_field_name=True)


def format_cost(cost: v1.Cost) -> str:
    """The total in dollars, as exact as it is; "~" marks an estimate."""
    if cost.unpriced:
        return "unpriced"
    whole, nanos = divmod(cost.total, 1_000_000_000)
    digits = f"{nanos:09d}".rstrip("0").ljust(2, "0")
    return f"{'~' if cost.estimated else ''}${whole}.{digits}"


def _print_decision(decision: v1.Decision, out: TextIO) -> None:
    strategy = v1.Strategy.Name(decision.strategy).removeprefix("STRATEGY_").lower()
    print(
        f"{decision.deployment} chosen of {decision.candidate_count} by {strategy}, "
        f"table {decision.snapshot_version}",
        file=out,
    )
    for candidate in decision.candidates:
        if candidate.HasField("exclusion"):
            reason = v1.ExclusionReason.Name(candidate.exclusion.reason)
            verdict = f"excluded: {reason.removeprefix('EXCLUSION_REASON_').lower()}"
            if candidate.exclusion.detail:
                verdict += f" ({candidate.exclusion.detail})"
        else:
            verdict = f"score {candidate.score:g}, {format_cost(candidate.estimated_cost)}"
        rank = candidate.rank or "-"
        print(f"{rank:>3} {candidate.provider}/{candidate.deployment}: {verdict}", file=out)


def _explain_error(error: TrunklineError, target: str) -> str:
    if isinstance(error, UnavailableError) and error.reason == v1.ERROR_REASON_UNSPECIFIED:
        return f"no router answers at {target}: {error.message}"
    text = str(error)
    if error.metadata.get("near"):
        text += f"; near: {error.metadata['near']}"
    if isinstance(error, RateLimitError) and error.retry_after is not None:
        text += f"; try again in {error.retry_after:g} s"
    if error.request_id:
        text += f" (request {error.request_id})"
    return text


def _fail(message: str, status: int) -> int:
    print(f"trunkline call: {' '.join(message.split())}", file=sys.stderr)
    return status
