"""The configuration of what outlives a call: databases and the ledger."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from trunkline_server.settings import values as read
from trunkline_server.settings.secrets import Secret
from trunkline_server.settings.stored import STORED_KINDS


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSettings:
    """`state`: where what outlives the process is kept."""

    # sqlite:///FILE, or env:NAME or file:PATH of an address such as
    # postgres://user:password@host/database. None: nowhere.
    database: Annotated[Secret | None, read.dsn] = None
    # redis://host:6379, rediss:// for TLS, redis+sentinel:// or redis+cluster://, or a reference.
    # Limits and budgets are counted there for all workers and replicas. None: each worker alone.
    redis: Annotated[Secret | None, read.dsn] = None
    # How long it has for each answer: a slow Redis is worse for calls than one that is away.
    redis_timeout: Annotated[float, read.duration(0.001, 60)] = 0.05
    # What holds for limits and for budgets while it is away: local, each replica enforces its
    # share; deny; or allow.
    limits_on_outage: Annotated[str, read.choice("local", "deny", "allow")] = "local"
    budgets_on_outage: Annotated[str, read.choice("local", "deny", "allow")] = "local"
    # The kinds of resources that the database has in place of this file, as `admin` changes
    # them. A kind in both is an error.
    owns: Annotated[tuple[str, ...], read.choices(*STORED_KINDS)] = ()
    # What stored resources may refer to, as shell patterns: whoever may change a provider
    # chooses where its key is sent.
    references: Annotated[tuple[str, ...], read.texts] = ("env:*_KEY", "credential:*")
    # A file with the last stored state that was right, to start from while the database is away.
    # None: without it, there is no start then.
    last_good: Annotated[Path | None, read.folder] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings:
    """`ledger`: an event for each call and each attempt, written before the answer leaves."""

    # The folder of the journal, which the workers of a machine share. None: no ledger is kept.
    journal: Annotated[Path | None, read.folder] = None
    # What an answered call survives: none, the end of the process; group, the end of the machine,
    # at the price of waiting for the disk.
    sync: Annotated[str, read.choice("none", "group")] = "none"
    # What becomes of calls while the journal cannot be written.
    on_full: Annotated[str, read.choice("deny", "allow")] = "deny"
    # The most that may wait on disk for the database.
    max_bytes: Annotated[int, read.size(2**20, 2**50)] = 4 * 2**30
    # How long events are kept in the database. 0: for ever.
    retention: Annotated[float, read.duration(0, 100 * 366 * 86_400.0)] = 0.0
