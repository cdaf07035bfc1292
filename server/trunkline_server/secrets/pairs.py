"""Credentials that rotations made, as encrypted records."""

from typing import Any

import orjson

from trunkline_server.secrets.ports import SecretValue
from trunkline_server.secrets.records import EncryptedRecords
from trunkline_server.secrets.rotation import Pair

CREDENTIAL_KIND = "credential"


class RecordKeeper:
    """Keeps pairs as records of the kind "credential", by the provider's name."""

    def __init__(self, records: EncryptedRecords) -> None:
        self._records = records

    async def save(self, provider: str, pair: Pair) -> None:
        """As Keeper.save."""
        document: dict[str, Any] = {"current": _document(pair.current)}
        if pair.previous is not None:
            document["previous"] = _document(pair.previous)
            document["grace_ends"] = pair.grace_ends
        await self._records.write(CREDENTIAL_KIND, provider, orjson.dumps(document))

    async def load(self, provider: str) -> Pair | None:
        """The pair last saved, or None. Raises EnvelopeError."""
        found = await self._records.read(CREDENTIAL_KIND, provider)
        if found is None:
            return None
        document = orjson.loads(found[0])
        previous = document.get("previous")
        return Pair(
            _value(document["current"]),
            _value(previous) if previous else None,
            document.get("grace_ends", 0.0),
        )


def _document(value: SecretValue) -> dict[str, Any]:
    return {"value": value.value, "version": value.version, "expires": value.expires}


def _value(document: dict[str, Any]) -> SecretValue:
    return SecretValue(document["value"], document["version"], document["expires"])
