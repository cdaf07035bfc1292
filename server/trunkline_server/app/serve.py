"""`trunkline serve`: one process alone, or a supervisor with workers that share the port."""

import asyncio
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import uvloop
from prometheus_client import CollectorRegistry, multiprocess

from trunkline_server.app.addresses import require_free, reserved, split_address
from trunkline_server.app.assembly import REDACTION
from trunkline_server.app.banner import banner
from trunkline_server.app.bookkeeping import prepare_database
from trunkline_server.app.lifeline import on_hangup, stop_on_signals, stop_with_parent
from trunkline_server.app.member import membership
from trunkline_server.app.sources import Origin, Overrides, Source, read_source
from trunkline_server.app.supervisor import READY_LINE, Supervisor
from trunkline_server.contract.openapi import openapi_yaml
from trunkline_server.settings import Settings
from trunkline_server.telemetry.conditions import JOURNAL
from trunkline_server.telemetry.control import StoreLog
from trunkline_server.telemetry.logs import configure_logging
from trunkline_server.telemetry.metrics import Metrics
from trunkline_server.telemetry.ops import OpsServer

# What a worker needs beyond its drain notice and timeout before it counts as stuck. Seconds.
_KILL_MARGIN = 5.0

# What the operators' server serves beside metrics and readiness.
_DOCUMENTS = {"/docs/openapi.yaml": openapi_yaml}


def serve(overrides: Overrides) -> int:
    """Serves until told to stop; returns the exit code. Raises ConfigError and OSError."""
    source = read_source(overrides)
    telemetry = source.settings.telemetry
    configure_logging(telemetry.log_level, telemetry.log_format, REDACTION)
    require_free(source.settings.server.listen)
    if source.settings.server.openai_listen:
        require_free(source.settings.server.openai_listen)
    if source.settings.server.workers == 1:
        return uvloop.run(_serve_alone(source, overrides))
    return uvloop.run(_serve_supervised(source, overrides))


def serve_as_worker(overrides: Overrides) -> int:
    """Serves as one of several workers; returns the exit code. Raises as `serve` does."""
    source = read_source(overrides)
    telemetry = source.settings.telemetry
    configure_logging(telemetry.log_level, telemetry.log_format, REDACTION)
    return uvloop.run(_serve_as_member(source, overrides))


async def _serve_alone(source: Source, overrides: Overrides) -> int:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    log = StoreLog(metrics)
    await prepare_database(source.settings)
    async with (
        _simulator(source, overrides),
        membership(source, overrides, metrics, log) as member,
    ):
        fatal = _fatal(source.settings)
        ops = OpsServer(lambda: registry, member.worker.unready, log.notes, fatal, _DOCUMENTS)
        async with member.serving(overrides) as port:
            ops_port = await _start_ops(ops, source.settings)
            stop = asyncio.Event()
            stop_on_signals(stop.set)
            openai = member.worker.openai_port
            _announce(source, member.worker.settings, port, ops_port, openai, member.control)
            await stop.wait()
        await ops.stop()
    return 0


async def _serve_supervised(source: Source, overrides: Overrides) -> int:
    server = source.settings.server
    await prepare_database(source.settings)
    with (
        reserved(source.settings.server.listen) as address,
        tempfile.TemporaryDirectory(prefix="trunkline-metrics-") as metrics,
    ):

        def registry() -> CollectorRegistry:
            collected = CollectorRegistry()
            multiprocess.MultiProcessCollector(collected, path=metrics)
            return collected

        def forget(pid: int) -> None:
            multiprocess.mark_process_dead(pid, path=metrics)

        supervisor = Supervisor(
            [sys.executable, "-m", "trunkline_server", "worker", *_arguments(overrides, address)],
            source.settings.server.workers,
            {"PROMETHEUS_MULTIPROC_DIR": metrics},
            server.drain_notice + server.drain_timeout + _KILL_MARGIN,
            forget,
            # One serves the control plane: what it says of health is then always the same one's.
            others=("--admin-listen", "off"),
        )
        fatal = _fatal(source.settings)
        ops = OpsServer(registry, supervisor.unready, fatal=fatal, documents=_DOCUMENTS)
        async with _simulator(source, overrides):
            stop_on_signals(supervisor.stop)
            on_hangup(supervisor.hang_up)
            running = asyncio.create_task(supervisor.run())
            if await supervisor.serving():
                ops_port = await _start_ops(ops, source.settings)
                port = split_address(address)[1]
                control = source.settings.admin_address
                openai = split_address(source.settings.server.openai_listen or ":0")[1]
                _announce(source, source.settings, port, ops_port, openai, control)
            code = await running
        await ops.stop()
        return code


def _notes(registry: CollectorRegistry) -> dict[str, str]:
    """What /readyz says of the workers' stores."""
    if registry.get_sample_value("trunkline_store_away"):
        return {"store": "away for a worker, changes wait; its log says why"}
    return {}


async def _serve_as_member(source: Source, overrides: Overrides) -> int:
    metrics = Metrics(CollectorRegistry())
    async with (
        membership(source, overrides, metrics, StoreLog(metrics)) as member,
        member.serving(overrides),
    ):
        stop = asyncio.Event()
        stop_on_signals(stop.set)
        stop_with_parent(stop.set)
        sys.stdout.buffer.write(READY_LINE)
        sys.stdout.buffer.flush()
        await stop.wait()
    return 0


@asynccontextmanager
async def _simulator(source: Source, overrides: Overrides) -> AsyncGenerator[None]:
    """The simulated providers beside the router, if that is what it routes to."""
    if source.origin is not Origin.SIMULATOR:
        yield
        return
    require_free(overrides.simulator_listen)
    command = (sys.executable, "-m", "trunkline_server.app.simulated", overrides.simulator_listen)
    child = Supervisor(command, 1, {}, _KILL_MARGIN, lambda _: None)
    running = asyncio.create_task(child.run())
    try:
        if not await child.serving():
            raise OSError(f"the simulator could not listen on {overrides.simulator_listen}")
        yield
    finally:
        child.stop()
        await running


def _fatal(settings: Settings) -> frozenset[str]:
    """The conditions under which every call fails, so that balancers look elsewhere."""
    denies = settings.ledger.journal is not None and settings.ledger.on_full == "deny"
    return frozenset({JOURNAL} if denies else ())


async def _start_ops(ops: OpsServer, settings: Settings) -> int | None:
    address = settings.server.ops_listen
    return await ops.start(*split_address(address)) if address else None


def _announce(  # noqa: PLR0917 - Where everything is.
    source: Source,
    settings: Settings,
    port: int,
    ops_port: int | None,
    openai_port: int,
    control: str,
) -> None:
    server = settings.server
    host, _ = split_address(server.listen)
    ops = f"{split_address(server.ops_listen)[0]}:{ops_port}" if ops_port else None
    openai = f"{split_address(server.openai_listen)[0]}:{openai_port}" if openai_port else ""
    model = next(iter(settings.models), "") or next((d.model for d in settings.deployments), "")
    told = banner(settings, source.origin, f"{host}:{port}", ops, openai, control, model)
    print(told, flush=True)


def _arguments(overrides: Overrides, address: str) -> list[str]:
    """The command line by which a worker finds the same configuration and the shared port."""
    arguments = ["--listen", address, "--simulator-listen", overrides.simulator_listen]
    if overrides.config is not None:
        arguments += ["--config", str(overrides.config)]
    if overrides.ops_listen is not None:
        arguments += ["--ops-listen", overrides.ops_listen]
    if overrides.openai_listen is not None:
        arguments += ["--openai-listen", overrides.openai_listen]
    if overrides.admin_listen is not None:
        arguments += ["--admin-listen", overrides.admin_listen]
    if overrides.workers is not None:
        arguments += ["--workers", str(overrides.workers)]
    return arguments
