"""`trunkline secrets`: master keys, and stored credentials without a control plane."""

import sys

from trunkline_server.app.bookkeeping import prepare_database
from trunkline_server.app.stored_credentials import MASTER_KEYS, sealed_records
from trunkline_server.clock import SystemClock
from trunkline_server.errors import TrunklineError
from trunkline_server.secrets.ports import SecretValue
from trunkline_server.secrets.records import Rekeyed
from trunkline_server.secrets.stored import CredentialRecords, StoredCredential, Version
from trunkline_server.settings import ConfigError, Problem, Settings, is_header_safe


async def rekey(settings: Settings) -> Rekeyed:
    """Seals every record under the first master key.

    Raises ConfigError without master keys and OSError when the database cannot be used.
    """
    clock = SystemClock()
    _require_keys(settings)
    await prepare_database(settings)
    try:
        async with sealed_records(settings, clock) as records:
            return await records.rekey()
    except TrunklineError as error:
        raise OSError(error.message) from None


async def put(settings: Settings, name: str, value: str) -> str:
    """Stores a credential's value, as it was given, without a trial; gives its version.

    One that is there already keeps its value for the grace of the settings. Raises as `rekey`.
    """
    clock = SystemClock()
    _require_keys(settings)
    if not is_header_safe(value):
        raise OSError("the value is empty, or holds characters that no header may hold")
    await prepare_database(settings)
    try:
        async with sealed_records(settings, clock) as records:
            return await _put(CredentialRecords(records), name, value, settings, clock.wall())
    except TrunklineError as error:
        raise OSError(error.message) from None


async def _put(
    records: CredentialRecords, name: str, value: str, settings: Settings, now: float
) -> str:
    held = await records.read(name)
    if held is None:
        at = round(now * 1e6)
        held = StoredCredential(
            name=name,
            reference="",
            canary_provider="",
            created_at=at,
            updated_at=at,
            current=Version(SecretValue(value, "1"), at),
        )
    elif held.reference:
        raise OSError(f"credential {name!r} is kept at {held.reference}: change it there")
    elif held.current.value.value != value:
        given = SecretValue(value, "")
        held = held.rotated(given, now=now, grace=settings.secrets.grace)
    written = await records.write(held)
    return written.current.value.version


def _require_keys(settings: Settings) -> None:
    if not settings.secrets.master_keys:
        raise ConfigError(MASTER_KEYS, [Problem(0, MASTER_KEYS, "is not set")])


def tell(done: Rekeyed, key_id: str) -> int:
    """Prints what a re-keying did; gives the exit code."""
    print(f"sealed anew under {key_id!r}: {done.sealed}; sealed under it before: {done.kept}")
    if done.overtaken:
        print(f"changed by others meanwhile: {done.overtaken}; run it again")
    for problem in done.unreadable:
        print(f"left as it was: {problem}", file=sys.stderr)
    return 1 if done.unreadable or done.overtaken else 0
