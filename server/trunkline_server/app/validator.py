"""Judges changes as a start would: by the settings' own parser, then by compiling the table."""

import asyncio
from collections.abc import Sequence

from trunkline_server.app.access import build_access
from trunkline_server.app.identity import build_admin_keys, build_certificates, build_keys
from trunkline_server.app.quotas import budgets_of, limits_of
from trunkline_server.app.stored import StoredState, documents_of
from trunkline_server.catalogue.compile import compile_snapshot
from trunkline_server.catalogue.prices import PriceBook
from trunkline_server.clock import Clock
from trunkline_server.rpc.admin.ports import Problem, Proposal
from trunkline_server.settings import ConfigError, Settings, Stored
from trunkline_server.settings import Problem as Mistake


class StartValidator:
    """An rpc.admin.ports.Validator for what is stored, beside the file as it is now."""

    def __init__(self, state: StoredState, book: PriceBook, clock: Clock) -> None:
        self._state = state
        self._book = book
        self._clock = clock

    async def check(self, proposal: Proposal) -> Sequence[Problem]:
        """As Validator.check. What is wrong without the change is not told again."""
        after = Stored(documents_of(proposal.documents), self._state.stored.drained)
        # Large tables take a while, and calls are served meanwhile.
        return await asyncio.to_thread(self._problems, after)

    def _problems(self, after: Stored) -> Sequence[Problem]:
        found = self._mistakes(after)
        if not found:
            return ()
        before = set(map(_told, self._mistakes(self._state.stored)))
        return [problem for problem in map(_told, found) if problem not in before]

    def _mistakes(self, stored: Stored) -> Sequence[Mistake]:
        try:
            compile_all(self._state.read_with(stored), self._book, self._clock.wall())
        except ConfigError as error:
            return error.problems
        except ValueError as error:
            return [Mistake(0, "", str(error))]
        return ()


def compile_all(settings: Settings, book: PriceBook, now: float) -> None:
    """Makes all that a start makes of settings, and throws it away. Raises ValueError."""
    compile_snapshot(settings, book, now=now)
    build_keys(settings)
    build_admin_keys(settings)
    build_certificates(settings.certificates)
    build_access(settings)
    limits_of(settings)
    budgets_of(settings)


def _told(mistake: Mistake) -> Problem:
    if mistake.kind:
        return Problem(mistake.kind, mistake.name, mistake.field, mistake.message)
    section, _, rest = mistake.path.partition(".")
    return Problem(section or "configuration", rest, "", mistake.message)
