"""CredentialService's secrets: stored encrypted, tried, written down, and taken into use."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from trunkline import v1
from trunkline_server.app.credentials import Credentials
from trunkline_server.app.provider_secrets import CheckedSource
from trunkline_server.app.stored_credentials import StoredCredentials
from trunkline_server.app.trials import Trial
from trunkline_server.clock import Clock
from trunkline_server.errors import TrunklineError, invalid
from trunkline_server.rpc.admin.ports import Canary, SecretInfo, SecretText, SecretVersion
from trunkline_server.secrets.ports import SecretSource, SecretValue, SecretWatch
from trunkline_server.secrets.records import RecordChangedError
from trunkline_server.secrets.stored import StoredCredential, Version
from trunkline_server.settings import InvalidValueError, is_header_safe, managed_reference

_VERDICTS = {
    "skipped": Canary("skipped"),
    "accepted": Canary("accepted"),
    "refused": Canary("refused"),
    "unreachable": Canary("unreachable"),
}


class CredentialService:
    """A rpc.admin.ports.Credentials over this process's credentials.

    What it writes it takes into use before it answers; other processes follow within a second.
    """

    def __init__(
        self,
        stored: StoredCredentials,
        credentials: Credentials,
        source: SecretSource,
        clock: Clock,
        permitted: Sequence[str],
    ) -> None:
        """`source` is where references lead; `permitted` are shell patterns of those that may be
        stored, as state.references has them."""
        self._permitted = permitted
        self._stored = stored
        self._credentials = credentials
        self._source = CheckedSource(source)
        self._clock = clock
        # Changes of this process one by one: their trials take time.
        self._lock = asyncio.Lock()

    async def list(self, *, prefix: str, after: str, limit: int) -> Sequence[SecretInfo]:
        """As Credentials.list."""
        names = [
            name for name in await self._stored.names() if name.startswith(prefix) and name > after
        ]
        found = [await self._stored.records.read(name) for name in names[:limit]]
        return [self._told(each) for each in found if each is not None]

    async def get(self, name: str) -> SecretInfo:
        """As Credentials.get."""
        return self._told(await self._read(name, None))

    async def create(
        self, name: str, *, reference: str, canary_provider: str, value: SecretText | None
    ) -> tuple[SecretInfo, Canary]:
        """As Credentials.create."""
        async with self._lock:
            if await self._stored.records.read(name) is not None:
                raise _taken(name)
            found = await self._value(reference, value, first=True)
            trial = await self._trial(canary_provider, name, found)
            if trial.verdict == "refused":
                raise TrunklineError(
                    v1.ERROR_REASON_PROVIDER_CREDENTIALS,
                    f"{canary_provider} refused the value: {trial.detail}",
                )
            now = round(self._clock.wall() * 1e6)
            made = StoredCredential(
                name=name,
                reference=reference,
                canary_provider=canary_provider,
                created_at=now,
                updated_at=now,
                current=Version(found, now),
            )
            try:
                written = await self._stored.records.write(made)
            except RecordChangedError:
                raise _taken(name) from None
            self._stored.took(written)
        return self._told(written), _canary(trial)

    async def update(
        self,
        name: str,
        *,
        reference: str | None,
        canary_provider: str | None,
        etag: str | None,
    ) -> SecretInfo:
        """As Credentials.update. The value in use stays until the next rotation."""
        async with self._lock:
            held = await self._read(name, etag)
            changed = replace(held, updated_at=round(self._clock.wall() * 1e6))
            if reference is not None:
                if reference:
                    self._check_reference(reference)
                changed = replace(changed, reference=reference)
            if canary_provider is not None:
                changed = replace(changed, canary_provider=canary_provider)
            return self._told(await self._write(changed))

    async def rotate(
        self, name: str, *, value: SecretText | None, grace: float, etag: str | None
    ) -> tuple[SecretInfo, Canary]:
        """As Credentials.rotate."""
        async with self._lock:
            held = await self._read(name, etag)
            found = await self._value(held.reference, value, first=False)
            if found.value == held.current.value.value:
                return self._told(held), Canary("skipped", "it is the value in use")
            trial = await self._trial(held.canary_provider, name, found)
            if trial.verdict in {"refused", "unreachable"}:
                return self._told(held), _canary(trial)
            changed = held.rotated(found, now=self._clock.wall(), grace=grace)
            return self._told(await self._write(changed)), _canary(trial)

    async def delete(self, name: str, *, etag: str | None) -> None:
        """As Credentials.delete."""
        async with self._lock:
            held = await self._read(name, etag)
            if users := self._credentials.users(name):
                raise TrunklineError(
                    v1.ERROR_REASON_FAILED_PRECONDITION,
                    f"credential {name!r} is referred to by {', '.join(sorted(users))}",
                    metadata={"providers": ",".join(sorted(users))},
                )
            if not await self._stored.records.delete(name, held.etag):
                raise _changed(name)
            self._stored.lost(name)

    async def follow_references(self, watch: SecretWatch, interval: float, grace: float) -> None:
        """Asks the managers of stored references anew, every `interval` seconds, for ever, and
        rotates to what is new there. Of several processes that find it one writes."""
        while True:
            await asyncio.sleep(interval)
            for held in self._stored.referring():
                started = self._clock.monotonic()
                try:
                    info, canary = await self.rotate(held.name, value=None, grace=grace, etag=None)
                except TrunklineError as error:
                    if error.reason != v1.ERROR_REASON_ABORTED:
                        watch.fetch_failed(held.reference, error.message, 0.0)
                    continue
                seconds = self._clock.monotonic() - started
                watch.fetched(held.reference, info.versions[0].version, seconds)
                if canary.verdict in {"refused", "unreachable"}:
                    watch.fetch_failed(held.reference, f"not taken: {canary.detail}", 0.0)

    async def _read(self, name: str, etag: str | None) -> StoredCredential:
        held = await self._stored.records.read(name)
        if held is None:
            raise TrunklineError(v1.ERROR_REASON_NOT_FOUND, f"there is no credential {name!r}")
        if etag not in {None, held.etag}:
            raise _changed(name)
        return held

    async def _write(self, changed: StoredCredential) -> StoredCredential:
        try:
            written = await self._stored.records.write(changed)
        except RecordChangedError:
            raise _changed(changed.name) from None
        self._stored.took(written)
        return written

    async def _value(self, reference: str, value: SecretText | None, *, first: bool) -> SecretValue:
        """The value that was given, or what its manager has now."""
        if value is None:
            self._check_reference(reference)
            return await self._source.fetch(reference)
        text = value.text.strip()
        if not is_header_safe(text):
            raise invalid("value", "is empty, or holds characters that no header may hold")
        # Later ones are numbered by the credential itself.
        return SecretValue(text, "1" if first else "")

    def _check_reference(self, reference: str) -> None:
        """Only managers, whose secrets are not this machine's, and of these what is permitted:
        whoever may write credentials must not read all that the router can."""
        try:
            managed_reference(reference)
        except InvalidValueError as error:
            raise invalid("credential.reference", str(error)) from None
        if not any(fnmatchcase(reference, pattern) for pattern in self._permitted):
            problem = "refers to what state.references does not permit"
            raise invalid("credential.reference", problem)

    async def _trial(self, provider: str, name: str, value: SecretValue) -> Trial:
        if not provider:
            return Trial("skipped", "no provider is named to try it")
        return await self._credentials.trial(provider, name, value.value)

    def _told(self, credential: StoredCredential) -> SecretInfo:
        now = self._clock.wall()
        versions = [_version(credential, credential.current)]
        if credential.previous is not None and now < credential.grace_ends:
            until = round(credential.grace_ends * 1e6)
            versions.append(_version(credential, credential.previous, until))
        return SecretInfo(
            name=credential.name,
            etag=credential.etag,
            reference=credential.reference,
            canary_provider=credential.canary_provider,
            created_at=credential.created_at,
            updated_at=credential.updated_at,
            versions=tuple(versions),
        )


def _version(
    credential: StoredCredential, version: Version, until: int | None = None
) -> SecretVersion:
    expires = version.value.expires
    return SecretVersion(
        version=version.value.version,
        fingerprint=credential.fingerprint(version),
        state="active" if until is None else "grace",
        created_at=version.created_at,
        grace_until=until,
        expires_at=None if expires is None else round(expires * 1e6),
    )


def _canary(trial: Trial) -> Canary:
    return replace(_VERDICTS[trial.verdict], detail=trial.detail)


def _taken(name: str) -> TrunklineError:
    return TrunklineError(v1.ERROR_REASON_ALREADY_EXISTS, f"there is a credential {name!r} already")


def _changed(name: str) -> TrunklineError:
    return TrunklineError(
        v1.ERROR_REASON_ABORTED, f"credential {name!r} was changed meanwhile: read it again"
    )
