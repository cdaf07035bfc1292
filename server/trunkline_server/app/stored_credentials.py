"""The credentials that the router keeps in its database, as one process knows them."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager

from trunkline_server.app.secret_sources import SecretManagers
from trunkline_server.clock import Clock
from trunkline_server.errors import TrunklineError
from trunkline_server.secrets.envelope import EnvelopeError, Keyring, MasterKeyError
from trunkline_server.secrets.master_keys import keyring_of
from trunkline_server.secrets.ports import SecretAudit, SecretError, SecretSource
from trunkline_server.secrets.records import EncryptedRecords
from trunkline_server.secrets.stored import CREDENTIAL_KIND, CredentialRecords, StoredCredential
from trunkline_server.settings import ConfigError, Problem, Settings
from trunkline_server.store.address import InvalidDsnError, open_database
from trunkline_server.store.database import Database, Limits, StoreUnavailableError
from trunkline_server.store.schema import SchemaError, check
from trunkline_server.store.sealed import SqlSealedStore
from trunkline_server.telemetry.secrets import SecretLog

DATABASE = "state.database"
MASTER_KEYS = "secrets.master_keys"
# Reads are few, and one connection listens.
_LIMITS = Limits(connections=2)


def _nobody(_: str) -> None:
    """Hears that a credential changed, before anybody listens."""


class StoredCredentials:
    """Every stored credential, from memory: read at the start, and whenever a replica has
    written one. While the database is away, what is known stays."""

    def __init__(self, records: EncryptedRecords, store: SqlSealedStore, log: SecretLog) -> None:
        self.records = CredentialRecords(records)
        self._sealed = records
        self._store = store
        self._log = log
        self._held: dict[str, StoredCredential] = {}
        # Why the database could not be read, or nothing.
        self.problem = ""
        # Called with the name of a credential that is another one now, or gone.
        self.on_change: Callable[[str], None] = _nobody

    def get(self, name: str) -> StoredCredential | None:
        """A credential as it was last known, or None."""
        return self._held.get(name)

    def referring(self) -> list[StoredCredential]:
        """Those whose values are kept elsewhere."""
        return [each for each in self._held.values() if each.reference]

    async def names(self) -> list[str]:
        """The names of all, in order, from the database."""
        return list(await self._store.etags(CREDENTIAL_KIND))

    async def start(self) -> None:
        """Reads all. Raises MasterKeyError if a record of any kind was sealed under a master key
        that is not here, and StoreUnavailableError."""
        await self._sealed.check()
        await self._follow(await self._store.etags(CREDENTIAL_KIND))

    async def run(self) -> None:
        """Follows what replicas write, until cancelled."""
        async with aclosing(self._store.watch(CREDENTIAL_KIND, heard=self.away)) as feed:
            async for etags in feed:
                await self._follow(etags)

    def took(self, credential: StoredCredential) -> None:
        """Takes over what this process has written itself."""
        self._held[credential.name] = credential
        self.on_change(credential.name)

    def lost(self, name: str) -> None:
        """Forgets what is there no more."""
        if self._held.pop(name, None) is not None:
            self.on_change(name)

    async def _follow(self, etags: Mapping[str, str]) -> None:
        for name in self._held.keys() - etags.keys():
            self.lost(name)
        for name, etag in etags.items():
            held = self._held.get(name)
            if held is not None and held.etag == etag:
                continue
            try:
                found = await self.records.read(name)
            except (EnvelopeError, StoreUnavailableError) as error:
                # The others are none the worse for it; what is known of this one stays.
                self._log.unreadable(name, error.message)
                continue
            if found is not None:
                self.took(found)

    def away(self, error: TrunklineError | None) -> None:
        """Notes that the database went away, or, with None, that it is back."""
        self.problem = "" if error is None else error.message
        self._log.unreachable(error is not None, self.problem)


async def open_sealed(settings: Settings) -> Database:
    """The database of the settings. Raises ConfigError for an address that is none."""
    secret = settings.state.database
    if secret is None:
        raise ConfigError(DATABASE, [Problem(0, DATABASE, "is not set")])
    try:
        return await open_database(secret.reveal(), DATABASE, _LIMITS)
    except InvalidDsnError as error:
        raise ConfigError(DATABASE, [Problem(0, DATABASE, str(error))]) from None


async def open_keyring(settings: Settings, source: SecretSource) -> Keyring:
    """The master keys of the settings, some of which may have to be fetched.

    Raises ConfigError for one that is no key, and OSError for one that cannot be had.
    """
    texts = {}
    for key_id, secret in settings.secrets.master_keys.items():
        path = f"{MASTER_KEYS}.{key_id}"
        try:
            managed = secret.managed
            value = (await source.fetch(secret.reference)).value if managed else secret.reveal()
        except SecretError as error:
            raise OSError(f"{path}: {error.message}") from None
        texts[key_id] = value
    try:
        return keyring_of(texts)
    except ValueError as error:
        raise ConfigError(MASTER_KEYS, [Problem(0, MASTER_KEYS, str(error))]) from None


@asynccontextmanager
async def stored_kept(
    settings: Settings,
    source: SecretSource,
    clock: Clock,
    *,
    log: SecretLog,
    audit: SecretAudit,
) -> AsyncGenerator[StoredCredentials]:
    """The stored credentials, while they are followed.

    Raises ConfigError for a wrong address or master key, before anything is written, and
    OSError for a schema that is not this build's. A database that is away is no hindrance here:
    providers that need it lack their secrets.
    """
    keyring = await open_keyring(settings, source)
    database = await open_sealed(settings)
    try:
        store = SqlSealedStore(database, clock)
        records = EncryptedRecords(store, keyring, audit)
        stored = StoredCredentials(records, store, log)
        try:
            await check(database)
            await stored.start()
        except SchemaError as error:
            raise OSError(str(error)) from error
        except MasterKeyError as error:
            raise ConfigError(MASTER_KEYS, [Problem(0, MASTER_KEYS, error.message)]) from None
        except TrunklineError as error:
            stored.away(error)
        following = asyncio.create_task(stored.run())
        try:
            yield stored
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    finally:
        await database.close()


@asynccontextmanager
async def sealed_records(settings: Settings, clock: Clock) -> AsyncGenerator[EncryptedRecords]:
    """The encrypted records of a configuration, for commands. Raises as `stored_kept` does."""
    managers = SecretManagers(settings.secrets, clock)
    try:
        keyring = await open_keyring(settings, managers)
        database = await open_sealed(settings)
        try:
            await check(database)
            yield EncryptedRecords(SqlSealedStore(database, clock), keyring, _unaudited)
        except (SchemaError, StoreUnavailableError) as error:
            raise OSError(str(error)) from error
        finally:
            await database.close()
    finally:
        managers.close()


def _unaudited(action: str, name: str, detail: Mapping[str, str]) -> None:
    """What is done by command, on the machine that has the master keys, is not in the trail."""
