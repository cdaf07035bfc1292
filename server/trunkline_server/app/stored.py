"""What the store owns, kept in force: read at the start, followed as it changes."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

from trunkline_server.app.last_good import LastGood
from trunkline_server.app.sources import Overrides, Source, overridden
from trunkline_server.catalogue.known import known
from trunkline_server.clock import Clock
from trunkline_server.rpc.admin.kinds import DRAINS
from trunkline_server.rpc.admin.picture import Picture
from trunkline_server.settings import (
    STORED_KINDS,
    ConfigError,
    Document,
    Problem,
    Settings,
    Stored,
    load,
)
from trunkline_server.store.address import InvalidDsnError, open_database
from trunkline_server.store.changes import POLL_SECONDS, ChangeFeed
from trunkline_server.store.database import Database, StoreUnavailableError
from trunkline_server.store.resources import ResourceStore
from trunkline_server.store.schema import SchemaError, check
from trunkline_server.telemetry.control import StoreLog

DATABASE = "state.database"

_KINDS = frozenset({*STORED_KINDS, DRAINS})


class Follower(Protocol):
    """Who takes over configurations; a Worker."""

    def reload(self, settings: Settings) -> None:
        """Takes one over; raises ConfigError."""
        ...

    def refused_reload(self, problems: str) -> None:
        """Hears of one that cannot be taken over."""
        ...


class StoredState:
    """The file and the store together: the configuration that they amount to.

    `settings` are those in force at the start. `database` and `resources` are the store's.
    """

    def __init__(
        self, source: Source, overrides: Overrides, database: Database, clock: Clock, log: StoreLog
    ) -> None:
        self.settings = source.settings
        self.database = database
        self.resources = ResourceStore(database, clock)
        self._overrides = overrides
        self._log = log
        self._feed = ChangeFeed(database, self.resources, heard=log.heard)
        copy = source.settings.state.last_good
        self._copy = None if copy is None else LastGood(copy)
        self._stored = Stored()
        self._picture: Picture | None = None

    @property
    def path(self) -> str:
        """The configuration file's name, for messages."""
        return str(self._overrides.config)

    @property
    def stored(self) -> Stored:
        """What the store holds, as far as is known here."""
        return self._stored

    def read(self) -> Settings:
        """The file as it is now, with the store as it was last read. Raises ConfigError."""
        return self.read_with(self._stored)

    def read_with(self, stored: Stored) -> Settings:
        """The same with something else in place of the store. Raises ConfigError."""
        path = self._overrides.config
        if path is None:
            return self.settings
        return overridden(load(path, known=known(), stored=stored), self._overrides)

    async def start(self) -> None:
        """Reads the store for the first time, or what was kept of it.

        Raises ConfigError when what it holds is wrong, and OSError when it cannot be had and
        nothing was kept of it.
        """
        try:
            await check(self.database)
            self._take(await Picture.of(self.resources, _KINDS))
            self.settings = self.read()
        except SchemaError as error:
            raise OSError(str(error)) from error
        except StoreUnavailableError as error:
            self._log.heard(error)
            self._start_without(error.message)
        except ConfigError as error:
            if not any(problem.stored for problem in error.problems) or self._copy is None:
                raise
            self._start_without(str(error))
        else:
            await self._keep()

    async def follow(self, follower: Follower) -> None:
        """Has every change taken over, until cancelled."""
        async for revision in self._feed.watch():
            if self._picture is not None and self._picture.revision == revision:
                continue
            while True:
                if await self._advance(follower):
                    break
                # It went away in between, as the feed will tell.
                await asyncio.sleep(POLL_SECONDS)

    async def _advance(self, follower: Follower) -> bool:
        """Takes over what is stored now; False if it could not be read."""
        try:
            picture = await Picture.of(self.resources, _KINDS, self._picture)
        except StoreUnavailableError:
            return False
        self._take(picture)
        try:
            follower.reload(self.read())
        except ConfigError as error:
            follower.refused_reload(str(error))
        else:
            await self._keep()
        return True

    def _take(self, picture: Picture) -> None:
        self._picture = picture
        self._stored = Stored(
            {kind: picture.documents.get(kind, {}) for kind in STORED_KINDS},
            frozenset(picture.documents.get(DRAINS, {})),
            picture.revision,
        )

    def _start_without(self, problem: str) -> None:
        """Starts from the copy, or, where the store owns nothing, from the file."""
        if self._copy is not None:
            try:
                self._stored = self._copy.read()
            except (OSError, ValueError) as error:
                raise OSError(
                    f"{problem}; and the copy {self._copy.path} (state.last_good) "
                    f"cannot be used: {error}"
                ) from error
            self._log.started_from_copy(str(self._copy.path), self._stored.revision, problem)
        elif self.settings.state.owns:
            raise OSError(
                f"{problem}; what the store owns ({', '.join(self.settings.state.owns)}) is not "
                "known without it. Set state.last_good to start from a copy next time"
            )
        self.settings = self.read()

    async def _keep(self) -> None:
        if self._copy is None:
            return
        try:
            await asyncio.to_thread(self._copy.write, self._stored)
        except OSError as error:
            self._log.copy_failed(str(self._copy.path), f"{error.strerror}")


@asynccontextmanager
async def state_kept(
    source: Source, overrides: Overrides, clock: Clock, log: StoreLog
) -> AsyncGenerator[StoredState | None]:
    """The store of resources, while it is followed; None if nobody needs it.

    Raises ConfigError and OSError as StoredState.start does.
    """
    settings = source.settings
    secret = settings.state.database
    if secret is None or not (settings.state.owns or settings.admin_address):
        yield None
        return
    try:
        database = await open_database(secret.reveal(), DATABASE)
    except InvalidDsnError as error:
        raise ConfigError(DATABASE, [Problem(0, DATABASE, str(error))]) from None
    try:
        state = StoredState(source, overrides, database, clock, log)
        await state.start()
        yield state
    finally:
        await database.close()


def documents_of(proposal: Mapping[str, Mapping[str, Document]]) -> dict[str, dict[str, Document]]:
    """Those of the kinds that settings know."""
    return {kind: dict(proposal.get(kind, {})) for kind in STORED_KINDS}
