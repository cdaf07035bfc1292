"""The credentials of one process, from its settings: managers, the database, the refresher."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from trunkline_server.app.credentials import Credentials
from trunkline_server.app.secret_sources import SecretManagers
from trunkline_server.clock import Clock
from trunkline_server.secrets.ports import SecretAudit
from trunkline_server.settings import Settings
from trunkline_server.telemetry.metrics import Metrics
from trunkline_server.telemetry.secrets import SecretLog
from trunkline_server.upstream.clients import make_client

# Connections for trials of new credentials, to one host.
_TRIALS = 4


@asynccontextmanager
async def credentials_kept(
    settings: Settings,
    clock: Clock,
    metrics: Metrics,
    audit: SecretAudit | None = None,
) -> AsyncGenerator[Credentials]:
    """The credentials of the settings' providers, while they are kept; `audit` hears of them.

    `audit` None keeps no trail. Raises as Credentials.start and stored_kept do.
    """
    log = SecretLog(metrics)
    trail = audit or _unaudited
    async with AsyncExitStack() as stack:
        http = make_client(proxies=False, max_connections_per_origin=_TRIALS)
        stack.push_async_callback(http.close)
        managers = SecretManagers(settings.secrets, clock)
        stack.callback(managers.close)
        stored = None
        if settings.secrets.master_keys:
            # With it come databases and ciphers, which others need not load.
            from trunkline_server.app.stored_credentials import stored_kept  # noqa: PLC0415

            keeping = stored_kept(settings, managers, clock, log=log, audit=trail)
            stored = await stack.enter_async_context(keeping)
        credentials = Credentials(
            settings.secrets, managers, http, clock, log=log, audit=trail, stored=stored
        )
        stack.push_async_callback(credentials.close)
        await credentials.start(settings)
        if stored is not None:
            from trunkline_server.app.credential_service import (  # noqa: PLC0415 - as above
                CredentialService,
            )

            service = CredentialService(
                stored, credentials, managers, clock, settings.state.references
            )
            credentials.service = service
            wanted = settings.secrets
            following = asyncio.create_task(
                service.follow_references(log, wanted.refresh_interval, wanted.grace)
            )
            stack.push_async_callback(_ended, following)
        yield credentials


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _unaudited(action: str, name: str, detail: Mapping[str, str]) -> None:
    """Where no audit trail is kept."""
