"""KeyService: secrets that are told once, and kept as digests."""

import hashlib
import secrets
from datetime import UTC, datetime
from typing import Any

from google.protobuf.duration_pb2 import Duration

from trunkline.admin import v1 as admin
from trunkline_server.errors import invalid
from trunkline_server.governance.identity.keys import NewKey, new_key
from trunkline_server.rpc.admin.calls import Call
from trunkline_server.rpc.admin.crud import crud, given
from trunkline_server.rpc.admin.handlers import Methods
from trunkline_server.rpc.admin.kinds import KEYS
from trunkline_server.rpc.admin.resources import Found, ResourceEngine

_DAY = 86_400.0
_MAX_OVERLAP = 90 * _DAY


class Keys:
    """KeyService. A key's document has, beside its fields: `hash`, sha256: and the digest of its
    secret, and in each of `retired` the same of a former one."""

    def __init__(self, engine: ResourceEngine) -> None:
        self._engine = engine

    def methods(self) -> Methods:
        """KeyService."""
        return {
            **crud(self._engine, KEYS),
            "CreateKey": self._create,
            "RotateKey": self._rotate,
            "RevokeKey": self._revoke,
        }

    async def _create(self, call: Call, request: admin.CreateKeyRequest) -> admin.CreateKeyResponse:
        made = new_key()
        key = await self._engine.create(call, KEYS, given(request, KEYS), _secret(made))
        return admin.CreateKeyResponse(key=key, secret=made.text)

    async def _rotate(self, call: Call, request: admin.RotateKeyRequest) -> admin.RotateKeyResponse:
        overlap = seconds_of(request, "overlap", default=_DAY, most=_MAX_OVERLAP)
        made = new_key()

        def edit(found: Found) -> dict[str, Any]:
            # Whoever learns the secret has what the key gives.
            self._engine.permit_gifts(call, set(KEYS.gives(found.message, request.name)))
            now = call.now_us() / 1e6
            retired = [each for each in _retired(found) if _until(each) > now]
            if overlap:
                last = {"prefix": found.document.get("prefix", ""), "until": _text(now + overlap)}
                retired.append({**last, "hash": found.document["hash"]})
            kept = {key: value for key, value in found.document.items() if key != "retired"}
            return {**kept, **_secret(made), **({"retired": retired} if retired else {})}

        key = await self._engine.amend(call, KEYS, request.name, request.etag, edit, act="rotate")
        return admin.RotateKeyResponse(key=key, secret=made.text)

    async def _revoke(self, call: Call, request: admin.RevokeKeyRequest) -> admin.RevokeKeyResponse:
        def edit(found: Found) -> dict[str, Any]:
            kept = {key: value for key, value in found.document.items() if key != "retired"}
            # A digest of what nobody knows: no later change can make the secret open again.
            dead = hashlib.sha256(secrets.token_bytes(32)).hexdigest()
            now = call.now_us() / 1e6
            ends = min([now, *([_moment(kept["expires"])] if "expires" in kept else [])])
            return {**kept, "hash": f"sha256:{dead}", "expires": _text(ends)}

        key = await self._engine.amend(call, KEYS, request.name, request.etag, edit, act="revoke")
        return admin.RevokeKeyResponse(key=key)


def seconds_of(request: Any, field: str, *, default: float, most: float) -> float:
    """The seconds of a duration in a request; raises TrunklineError with INVALID_REQUEST for
    one below zero or above the most."""
    if not request.HasField(field):
        return default
    duration: Duration = getattr(request, field)
    seconds = duration.seconds + duration.nanos / 1e9
    if not 0 <= seconds <= most:
        raise invalid(field, f"must be from 0 to {most:g} seconds")
    return seconds


def _secret(made: NewKey) -> dict[str, str]:
    return {"hash": f"sha256:{made.digest.hex()}", "prefix": made.prefix}


def _retired(found: Found) -> list[dict[str, Any]]:
    retired: list[dict[str, Any]] = found.document.get("retired", [])
    return retired


def _until(retired: dict[str, Any]) -> float:
    return _moment(retired["until"])


def _moment(text: str) -> float:
    parsed = datetime.fromisoformat(text)
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def _text(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
