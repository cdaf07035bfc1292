"""`make run-full`: the router on a real Redis and a real Postgres, which this starts and ends.

Runs deploy/trunkline.full.yaml in a scratch folder that goes with it, fills the store with
simulated providers through the control plane, and prints calls to paste. Needs the server
programs of both, from packages or on PATH.
"""

import argparse
import asyncio
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import grpc
from tests.support.mortal import mortal
from tests.support.ports import free_port
from tests.support.postgres_server import PostgresServer, postgres_programs
from tests.support.redis_server import RedisServer, redis_program

from trunkline.admin import v1 as admin
from trunkline_server.rpc.admin.documents import from_document
from trunkline_server.settings import written_documents

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "deploy" / "trunkline.full.yaml"
TRUNKLINE = str(Path(sys.executable).with_name("trunkline"))
# A loaded machine starts slowly; what takes longer does not start at all. Seconds.
PATIENCE = 60.0
_NO_HASH = "0" * 64

# What the store is filled with: the kind, its service, and its name in methods.
_FILLED: Sequence[tuple[str, str, str, Any]] = (
    ("providers", "ProviderService", "Provider", admin.Provider),
    ("deployments", "DeploymentService", "Deployment", admin.Deployment),
    ("models", "RouteService", "Model", admin.Model),
    ("routes", "RouteService", "Route", admin.Route),
)


def main() -> int:
    """Runs until told to stop; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make run-full", description=__doc__)
    for name, default in (("listen", 50051), ("ops-listen", 9464), ("admin-listen", 50052)):
        parser.add_argument(f"--{name}", default=f"127.0.0.1:{default}", metavar="HOST:PORT")
    parsed = parser.parse_args()
    postgres, redis = postgres_programs(), redis_program()
    missing = [
        what
        for what, found in (
            ("PostgreSQL's server (package postgresql)", postgres),
            ("Redis' server (package redis-server)", redis),
        )
        if found is None
    ]
    if postgres is None or redis is None:
        print(f"run-full: not installed: {' and '.join(missing)}", file=sys.stderr)
        return 1
    # From here on an end is an end in order.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trunkline-full-")))
        cache = RedisServer(redis)
        stack.callback(cache.close)
        database = PostgresServer(postgres)
        stack.callback(database.close)
        print(f"Redis on {cache.address}, Postgres on {database.address}, data in {scratch}")
        cache.start()
        database.start()
        root_key = f"tk_{secrets.token_urlsafe(32)}"
        text = CONFIG.read_text("utf-8").replace(_NO_HASH, sha256(root_key.encode()).hexdigest())
        config = scratch / CONFIG.name
        config.write_text(text, "utf-8")
        simulator = f"127.0.0.1:{free_port()}"
        env = {
            **os.environ,
            "DATABASE_URL": database.dsn(),
            "REDIS_URL": cache.url,
            "TRUNKLINE_SIMULATOR_KEY": "simulated",
        }
        subprocess.run([TRUNKLINE, "migrate", str(config)], env=env, check=True)
        stack.enter_context(
            program([sys.executable, "-m", "trunkline_server.simulator", "--listen", simulator])
        )
        addresses = [parsed.listen, parsed.ops_listen, parsed.admin_listen]
        words = zip(("--listen", "--ops-listen", "--admin-listen"), addresses, strict=True)
        flags = [word for pair in words for word in pair]
        command = [TRUNKLINE, "serve", "--config", str(config), *flags]
        router = stack.enter_context(program(command, env))
        key = asyncio.run(fill(router, parsed.admin_listen, root_key, simulator))
        print(_calls(parsed.listen, parsed.admin_listen, root_key, key), flush=True)
        return router.wait()


def _run() -> int:
    try:
        return main()
    except KeyboardInterrupt:
        return 0


@contextmanager
def program(
    command: Sequence[str], env: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs a program, and ends it in order; it does not outlive this one in any case."""
    # Interrupts typed at a terminal go to the whole group: each program is ended by us, in turn.
    process = subprocess.Popen(mortal(command), env=env, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)


async def fill(
    router: "subprocess.Popen[bytes]", address: str, root_key: str, simulator: str
) -> str:
    """Puts the simulated providers into the store, and makes a key; gives the key."""
    file = resources.files("trunkline_server.simulator") / "trunkline.yaml"
    documents = written_documents(file.read_text("utf-8").replace("127.0.0.1:18080", simulator))
    metadata = (("authorization", f"Bearer {root_key}"),)
    deadline = time.monotonic() + PATIENCE
    async with grpc.aio.insecure_channel(address) as channel:
        while channel.get_state(try_to_connect=True) is not grpc.ChannelConnectivity.READY:
            if router.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("run-full: the router did not start; its messages say why")
            await asyncio.sleep(0.05)
        for kind, service, name, message in _FILLED:
            for each, document in documents[kind].items():
                resource = from_document(message, document)
                resource.name = each
                request = getattr(admin, f"Create{name}Request")(**{name.lower(): resource})
                create = getattr(_stub(service, channel), f"Create{name}")
                await create(request, metadata=metadata, timeout=PATIENCE)
        keys = _stub("KeyService", channel)
        made = await keys.CreateKey(
            admin.CreateKeyRequest(key=admin.Key(name="demo")), metadata=metadata, timeout=PATIENCE
        )
    secret: str = made.secret
    return secret


def _stub(service: str, channel: grpc.aio.Channel) -> Any:
    module = service.removesuffix("Service").lower() + "_service_pb2_grpc"
    return getattr(import_module(f"trunkline.admin.v1.{module}"), f"{service}Stub")(channel)


def _calls(listen: str, admin_listen: str, root_key: str, key: str) -> str:
    grpcurl = shutil.which("grpcurl") or str(ROOT / ".tools" / "bin" / "grpcurl")
    service = "trunkline.admin.v1"
    limit = {
        "limit": {
            "name": "slow-down",
            "measure": "LIMIT_MEASURE_REQUESTS",
            "scope": "RULE_SCOPE_KEY",
            "amount": 3,
            "per": "LIMIT_PER_MINUTE",
        }
    }
    as_root = f'-H "authorization: Bearer {root_key}"'
    return "\n".join(
        [
            "",
            "A call with a key that the control plane made:",
            f"  TRUNKLINE_API_KEY={key} {TRUNKLINE} call --target {listen} \\",
            '    --model sim-large "Why is the sky blue?"',
            "What it cost, after a moment:",
            f"  {grpcurl} -plaintext {as_root} \\",
            f"    {admin_listen} {service}.UsageService/QueryUsage",
            "Another provider first, on all workers within a second:",
            f"  {grpcurl} -plaintext {as_root} \\",
            """    -d '{"name": "sim-openai-large", "reason": "a try"}' \\""",
            f"    {admin_listen} {service}.DeploymentService/DrainDeployment",
            "Three calls a minute from now on, counted in Redis:",
            f"  {grpcurl} -plaintext {as_root} \\",
            f"    -d {shlex.quote(str(limit).replace(chr(39), chr(34)))} \\",
            f"    {admin_listen} {service}.LimitService/CreateLimit",
            "",
            "Ctrl-C ends the router, Redis and Postgres, and removes their data.",
        ]
    )


if __name__ == "__main__":
    sys.exit(_run())
