"""Credentials that the router keeps itself, as encrypted records: what CredentialService manages.

A record holds the values in use with all that is told of them. Whoever changes one writes it
over the etag that was read, so that of two who rotate at once one does; the others adopt what
they find.
"""

import hmac
import secrets
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

import orjson

from trunkline_server.secrets.envelope import UnknownFormatError
from trunkline_server.secrets.ports import SecretValue
from trunkline_server.secrets.records import EncryptedRecords
from trunkline_server.secrets.rotation import Pair

CREDENTIAL_KIND = "credential"
_FINGERPRINT_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Version:
    """One value, and when it came into use, in microseconds since the Unix epoch."""

    value: SecretValue
    created_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCredential:
    """A credential as it is kept.

    `reference` says where its value comes from, empty where it was given. `canary_provider` is
    whom a new value is tried at. Times are microseconds since the Unix epoch, but `grace_ends`,
    Unix seconds until which `previous` is kept beside `current`. `count` numbers the values that
    were given. `salt` keys the fingerprints: they tell the values of one credential apart.
    """

    name: str
    reference: str
    canary_provider: str
    created_at: int
    updated_at: int
    current: Version
    previous: Version | None = None
    grace_ends: float = 0.0
    count: int = 1
    salt: bytes = field(default_factory=lambda: secrets.token_bytes(16), repr=False)
    # The record's; empty until it is written.
    etag: str = ""

    def pair(self, now: float) -> Pair:
        """The values in use at `now`, Unix seconds."""
        if self.previous is None or now >= self.grace_ends:
            return Pair(self.current.value)
        return Pair(self.current.value, self.previous.value, self.grace_ends)

    def rotated(self, value: SecretValue, *, now: float, grace: float) -> "StoredCredential":
        """The same with another value; the one before is kept for `grace` seconds."""
        at = round(now * 1e6)
        count = self.count
        if not value.version:
            count += 1
            value = replace(value, version=str(count))
        return replace(
            self,
            current=Version(value, at),
            previous=self.current if grace > 0 else None,
            grace_ends=now + grace if grace > 0 else 0.0,
            updated_at=at,
            count=count,
        )

    def fingerprint(self, version: Version) -> str:
        """What tells a value from others of this credential, and gives nothing away."""
        mac = hmac.new(self.salt, version.value.value.encode(), sha256)
        return mac.hexdigest()[:_FINGERPRINT_DIGITS]


class CredentialRecords:
    """Stored credentials by name. Methods raise as those of EncryptedRecords do."""

    def __init__(self, records: EncryptedRecords) -> None:
        self._records = records

    async def read(self, name: str) -> StoredCredential | None:
        """The credential, or None. Raises UnknownFormatError for what a later build wrote."""
        found = await self._records.read(CREDENTIAL_KIND, name)
        if found is None:
            return None
        content, etag = found
        try:
            return _credential(name, orjson.loads(content), etag)
        except (KeyError, TypeError, ValueError):
            # Not chained: the cause quotes what it could not read.
            raise UnknownFormatError(
                f"credential {name!r} is of a form that this build does not know"
            ) from None

    async def write(self, credential: StoredCredential) -> StoredCredential:
        """Writes it over the record whose etag it has, or, with none, as a new one."""
        content = orjson.dumps(_document(credential))
        etag = await self._records.write(CREDENTIAL_KIND, credential.name, content, credential.etag)
        return replace(credential, etag=etag)

    async def delete(self, name: str, etag: str) -> bool:
        """Removes it; False if it is not there with that etag."""
        return await self._records.delete(CREDENTIAL_KIND, name, etag)


def _document(credential: StoredCredential) -> dict[str, Any]:
    previous = credential.previous
    return {
        "reference": credential.reference,
        "canary_provider": credential.canary_provider,
        "created_at": credential.created_at,
        "updated_at": credential.updated_at,
        "count": credential.count,
        "salt": credential.salt.hex(),
        "current": _version_document(credential.current),
        "previous": _version_document(previous) if previous else None,
        "grace_ends": credential.grace_ends,
    }


def _credential(name: str, document: dict[str, Any], etag: str) -> StoredCredential:
    previous = document["previous"]
    return StoredCredential(
        name=name,
        reference=document["reference"],
        canary_provider=document["canary_provider"],
        created_at=document["created_at"],
        updated_at=document["updated_at"],
        count=document["count"],
        salt=bytes.fromhex(document["salt"]),
        current=_version(document["current"]),
        previous=_version(previous) if previous else None,
        grace_ends=document["grace_ends"],
        etag=etag,
    )


def _version_document(version: Version) -> dict[str, Any]:
    value = version.value
    return {
        "value": value.value,
        "version": value.version,
        "expires": value.expires,
        "created_at": version.created_at,
    }


def _version(document: dict[str, Any]) -> Version:
    value = SecretValue(document["value"], document["version"], document["expires"])
    return Version(value, document["created_at"])
