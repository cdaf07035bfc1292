"""The configuration of the audit trail."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from trunkline_server.settings import values as read
from trunkline_server.settings.secrets import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """`audit`: a chain of entries in the database of who was let in and what was changed."""

    # Which access decisions are recorded: none, those that denied, or all. Changes always are.
    decisions: Annotated[str, read.choice("none", "denied", "all")] = "denied"
    # A folder where entries wait for the database, so that the end of the process loses none.
    # None: in memory alone.
    spool: Annotated[Path | None, read.folder] = None
    # A file to which the end of the chain is written now and then, which tells when the chain's
    # own end is cut off; best kept where the database's master cannot write. None: nowhere.
    checkpoints: Annotated[Path | None, read.folder] = None
    # Signs the checkpoints.
    checkpoint_key: Annotated[Secret | None, read.secret] = None
    # What becomes of what cannot be recorded because max_waiting entries wait: deny refuses it,
    # drop lets it be and records how much was lost.
    on_full: Annotated[str, read.choice("deny", "drop")] = "deny"
    max_waiting: Annotated[int, read.integer(1, 10_000_000)] = 10_000
