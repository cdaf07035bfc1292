"""The command line: `trunkline serve`, `check`, `health`, `migrate`, `secrets`, `audit`, `call`,
`hash-key`."""

import argparse
import hashlib
import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from trunkline_server.app.tuning import tune_grpc

# Before anything imports grpc.
tune_grpc()

from trunkline_server.app.sources import SIMULATOR_ADDRESS, Overrides  # noqa: E402
from trunkline_server.settings import ConfigError, Settings  # noqa: E402

# The exit code for wrong usage and wrong configuration; 1 is for what fails later.
USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == ["call"]:
        # The client's own command line, which needs nothing of the server.
        from trunkline.cli import call  # noqa: PLC0415

        return call(arguments[1:])
    parsed = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = parsed.command
    try:
        return command(parsed)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return USAGE
    except OSError as error:
        print(f"trunkline: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trunkline", description="A gRPC router for language-model traffic."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve until told to stop")
    _serving_options(serve)
    serve.set_defaults(command=_serve)
    # What the supervisor runs: serve, as one of several that share the port.
    worker = commands.add_parser("worker")
    _serving_options(worker)
    worker.set_defaults(command=_worker)
    check = commands.add_parser("check", help="check a configuration file, and sum it up")
    check.add_argument("config", type=Path, metavar="CONFIG")
    check.set_defaults(command=_check)
    migrate = commands.add_parser("migrate", help="make or update the tables of state.database")
    migrate.add_argument("config", type=Path, metavar="CONFIG")
    migrate.set_defaults(command=_migrate)
    _audit_options(commands.add_parser("audit", help="verify or export the audit trail"))
    hash_key = commands.add_parser(
        "hash-key", help="make a key for a caller, or hash one given on standard input"
    )
    hash_key.add_argument("--stdin", action="store_true", help="hash the line on standard input")
    hash_key.set_defaults(command=_hash_key)
    _secrets_commands(commands.add_parser("secrets", help="master keys and stored credentials"))
    _schema_options(commands.add_parser("schema", help="print the contract, for other tools"))
    _health_options(commands.add_parser("health", help="ask a router whether it serves"))
    commands.add_parser("call", help="make one call, as a quick try", add_help=False)
    return parser


def _secrets_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    make_key = commands.add_parser("make-key", help="make a master key")
    make_key.set_defaults(command=_make_key)
    put = commands.add_parser(
        "put", help="store the credential on standard input, encrypted, as NAME"
    )
    put.add_argument("config", type=Path, metavar="CONFIG")
    put.add_argument("name", metavar="NAME")
    put.set_defaults(command=_put_secret)
    rekey = commands.add_parser(
        "rekey", help="seal everything under the first of secrets.master_keys"
    )
    rekey.add_argument("config", type=Path, metavar="CONFIG")
    rekey.set_defaults(command=_rekey)


def _schema_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "language",
        choices=("descriptors", "json-schema", "openapi"),
        help="descriptors: a serialised google.protobuf.FileDescriptorSet, such as Envoy reads",
    )
    parser.set_defaults(command=_schema)


def _health_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", nargs="?", default="127.0.0.1:50051", metavar="HOST:PORT")
    parser.add_argument("--service", default="", help="one service (default: the whole server)")
    parser.add_argument("--timeout", type=float, default=3.0, metavar="SECONDS")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="over TLS, trusting these roots")
    parser.set_defaults(command=_health)


def _audit_options(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    verify = commands.add_parser(
        "verify",
        help="tell whether anything in the trail was changed, removed, put in or cut off",
        description="Exits with 0 for a sound trail, 3 for one that was tampered with, and 1 "
        "when that cannot be told.",
    )
    where = verify.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "config", type=Path, nargs="?", metavar="CONFIG", help="whose state.database holds it"
    )
    where.add_argument("--export", type=Path, metavar="FILE", help="an export in place of it")
    verify.add_argument(
        "--checkpoints",
        type=Path,
        metavar="FILE",
        help="what the trail was at times before (default: audit.checkpoints of CONFIG)",
    )
    verify.add_argument(
        "--checkpoint-key",
        metavar="env:NAME or file:PATH",
        help="what signed them (default: audit.checkpoint_key of CONFIG)",
    )
    verify.set_defaults(command=_audit_verify)
    export = commands.add_parser("export", help="write every entry as a line of JSON")
    export.add_argument("config", type=Path, metavar="CONFIG")
    export.add_argument(
        "--output", type=Path, metavar="FILE", help="a new file (default: standard output)"
    )
    export.set_defaults(command=_audit_export)


def _serving_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration file")
    parser.add_argument("--listen", metavar="HOST:PORT", help="where gRPC listens")
    parser.add_argument("--ops-listen", metavar="HOST:PORT", help="where metrics are served")
    parser.add_argument(
        "--admin-listen", metavar="HOST:PORT", help="where the control plane is served"
    )
    parser.add_argument(
        "--openai-listen", metavar="HOST:PORT", help="where the OpenAI-compatible face is served"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes that share the port")
    parser.add_argument(
        "--simulator-listen",
        default=SIMULATOR_ADDRESS,
        metavar="HOST:PORT",
        help="where the simulated providers listen, when they are used (default: %(default)s)",
    )


def _overrides(parsed: argparse.Namespace) -> Overrides:
    return Overrides(
        config=parsed.config,
        listen=parsed.listen,
        ops_listen=parsed.ops_listen,
        admin_listen=parsed.admin_listen,
        openai_listen=parsed.openai_listen,
        workers=parsed.workers,
        simulator_listen=parsed.simulator_listen,
    )


def _serve(parsed: argparse.Namespace) -> int:
    from trunkline_server.app.serve import serve  # noqa: PLC0415 - half a second of imports

    return serve(_overrides(parsed))


def _worker(parsed: argparse.Namespace) -> int:
    from trunkline_server.app.serve import serve_as_worker  # noqa: PLC0415 - as above

    return serve_as_worker(_overrides(parsed))


def _check(parsed: argparse.Namespace) -> int:
    from trunkline_server.catalogue.check import check  # noqa: PLC0415 - as above

    print(check(parsed.config))
    return 0


def _schema(parsed: argparse.Namespace) -> int:
    from trunkline_server.contract.documents import document  # noqa: PLC0415 - as above

    sys.stdout.buffer.write(document(parsed.language))
    return 0


def _health(parsed: argparse.Namespace) -> int:
    from trunkline_server.app.health_command import check_health  # noqa: PLC0415 - as above

    roots = None if parsed.ca is None else parsed.ca.read_bytes()
    return check_health(parsed.target, parsed.service, parsed.timeout, roots)


def _migrate(parsed: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415 - as above

    from trunkline_server.app.bookkeeping import migrate  # noqa: PLC0415 - as above

    steps = asyncio.run(migrate(_loaded(parsed.config)))
    print("\n".join(f"applied {step}" for step in steps) or "nothing to do")
    return 0


def _loaded(config: Path) -> Settings:
    from trunkline_server.catalogue.known import known  # noqa: PLC0415 - as above
    from trunkline_server.settings import load  # noqa: PLC0415 - as above

    return load(config, known=known())


def _audit_verify(parsed: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415 - as above
    import os  # noqa: PLC0415 - as above

    from trunkline_server.app.audit_commands import (  # noqa: PLC0415 - as above
        verify_export,
        verify_trail,
    )
    from trunkline_server.settings import InvalidValueError, resolve_secret  # noqa: PLC0415

    key = None
    if parsed.checkpoint_key is not None:
        try:
            secret = resolve_secret(parsed.checkpoint_key, os.environ, Path())
        except InvalidValueError as error:
            print(f"trunkline: --checkpoint-key: {error}", file=sys.stderr)
            return USAGE
        key = secret.reveal().encode()
    if parsed.export is not None:
        return verify_export(parsed.export, parsed.checkpoints, key or b"")
    return asyncio.run(verify_trail(_loaded(parsed.config), parsed.checkpoints, key))


def _audit_export(parsed: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415 - as above

    from trunkline_server.app.audit_commands import export_trail  # noqa: PLC0415 - as above

    settings = _loaded(parsed.config)
    if parsed.output is None:
        asyncio.run(export_trail(settings, sys.stdout.buffer))
        return 0
    with parsed.output.open("xb") as output:
        count = asyncio.run(export_trail(settings, output))
    print(f"{count} entries")
    return 0


def _make_key(_: argparse.Namespace) -> int:
    from trunkline_server.secrets.master_keys import new_key  # noqa: PLC0415 - as above

    print(new_key())
    return 0


def _put_secret(parsed: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415 - as above

    from trunkline_server.app.secret_commands import put  # noqa: PLC0415 - as above
    from trunkline_server.catalogue.known import known  # noqa: PLC0415 - as above
    from trunkline_server.settings import is_credential_name, load  # noqa: PLC0415 - as above

    if not is_credential_name(parsed.name):
        print("trunkline: NAME is letters, digits and ._:@+- only, at most 128", file=sys.stderr)
        return USAGE
    settings = load(parsed.config, known=known())
    version = asyncio.run(put(settings, parsed.name, sys.stdin.readline().strip()))
    print(f"credential:{parsed.name} has version {version}")
    return 0


def _rekey(parsed: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415 - as above

    from trunkline_server.app.secret_commands import rekey, tell  # noqa: PLC0415 - as above
    from trunkline_server.catalogue.known import known  # noqa: PLC0415 - as above
    from trunkline_server.settings import load  # noqa: PLC0415 - as above

    settings = load(parsed.config, known=known())
    done = asyncio.run(rekey(settings))
    return tell(done, next(iter(settings.secrets.master_keys)))


def _hash_key(parsed: argparse.Namespace) -> int:
    """Prints the hash for the configuration, and the key itself if it was made here."""
    if parsed.stdin:
        key = sys.stdin.readline().strip()
        if not key:
            print("trunkline: no key on standard input", file=sys.stderr)
            return USAGE
    else:
        # As governance.keys.new_key makes them, without its imports.
        prefix = f"tk_{secrets.token_hex(4)}"
        key = f"{prefix}_{secrets.token_urlsafe(32)}"
        print(f"key:    {key}  (give it to the caller; it is shown only now)")
        print(f"prefix: {prefix}  (tells keys apart and opens nothing)")
    print(f"hash:   sha256:{hashlib.sha256(key.encode()).hexdigest()}  (for the configuration)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
