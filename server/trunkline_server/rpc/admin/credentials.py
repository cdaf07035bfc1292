"""CredentialService: secrets that can be written and never read."""

import orjson
from google.protobuf.timestamp_pb2 import Timestamp

from trunkline.admin import v1 as admin
from trunkline_server import pages
from trunkline_server.errors import invalid
from trunkline_server.rpc.admin.calls import Call
from trunkline_server.rpc.admin.handlers import Methods
from trunkline_server.rpc.admin.keys import seconds_of
from trunkline_server.rpc.admin.masks import FIELD, paths_of
from trunkline_server.rpc.admin.ports import (
    Canary,
    Credentials,
    SecretInfo,
    SecretText,
    SecretVersion,
)
from trunkline_server.rpc.admin.resources import NAME

_HOUR = 3600.0
_MAX_GRACE = 30 * 86_400.0
_MAX_VALUE = 64 * 1024
_OUTPUT_ONLY = frozenset({"versions"})
_BEGUN = {"phase": "begun"}

_STATES = {
    "active": admin.CREDENTIAL_STATE_ACTIVE,
    "grace": admin.CREDENTIAL_STATE_GRACE,
}
_VERDICTS = {
    "skipped": admin.CANARY_VERDICT_SKIPPED,
    "accepted": admin.CANARY_VERDICT_ACCEPTED,
    "refused": admin.CANARY_VERDICT_REFUSED,
    "unreachable": admin.CANARY_VERDICT_UNREACHABLE,
}


class CredentialServicer:
    """CredentialService."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def methods(self) -> Methods:
        """CredentialService."""
        return {
            "ListCredentials": self._list,
            "GetCredential": self._get,
            "CreateCredential": self._create,
            "UpdateCredential": self._update,
            "RotateCredential": self._rotate,
            "DeleteCredential": self._delete,
        }

    async def _list(
        self, call: Call, request: admin.ListCredentialsRequest
    ) -> admin.ListCredentialsResponse:
        call.permit("admin.credentials.read", "credentials")
        size = pages.size_of(request.page_size)
        question = ("credentials", request.prefix)
        after = pages.read_token(request.page_token, *question) or ""
        found = await self._credentials.list(prefix=request.prefix, after=after, limit=size + 1)
        page = found[:size]
        more = len(found) > size
        return admin.ListCredentialsResponse(
            credentials=[_told(each) for each in page],
            next_page_token=pages.write_token(page[-1].name, *question) if more else "",
        )

    async def _get(
        self, call: Call, request: admin.GetCredentialRequest
    ) -> admin.GetCredentialResponse:
        call.permit("admin.credentials.read", f"credentials/{request.name}")
        found = await self._credentials.get(request.name)
        return admin.GetCredentialResponse(credential=_told(found))

    async def _create(
        self, call: Call, request: admin.CreateCredentialRequest
    ) -> admin.CreateCredentialResponse:
        given = request.credential
        if not NAME.match(given.name):
            problem = "is no name; see the field's comment" if given.name else "is empty"
            raise invalid("credential.name", problem)
        target = f"credentials/{given.name}"
        call.permit("admin.credentials.write", target)
        value = _value(request.value)
        if (value is None) is not bool(given.reference):
            raise invalid("value", "is to be set if, and only if, credential.reference is not")
        call.record("admin.credentials.create", target, details=_BEGUN)
        made, canary = await self._credentials.create(
            given.name,
            reference=given.reference,
            canary_provider=given.canary_provider,
            value=value,
        )
        self._record(call, "create", None, made, canary)
        return admin.CreateCredentialResponse(credential=_told(made), canary=_canary(canary))

    async def _update(
        self, call: Call, request: admin.UpdateCredentialRequest
    ) -> admin.UpdateCredentialResponse:
        given = request.credential
        target = f"credentials/{given.name}"
        call.permit("admin.credentials.write", target)
        paths = paths_of(request.update_mask.paths, given, _OUTPUT_ONLY)
        if not paths:
            raise invalid(FIELD, "is empty, and so are the fields that it could name")
        before = await self._credentials.get(given.name)
        call.record("admin.credentials.update", target, details=_BEGUN)
        changed = await self._credentials.update(
            given.name,
            reference=given.reference if "reference" in paths else None,
            canary_provider=given.canary_provider if "canary_provider" in paths else None,
            etag=given.etag or None,
        )
        self._record(call, "update", before, changed)
        return admin.UpdateCredentialResponse(credential=_told(changed))

    async def _rotate(
        self, call: Call, request: admin.RotateCredentialRequest
    ) -> admin.RotateCredentialResponse:
        target = f"credentials/{request.name}"
        call.permit("admin.credentials.write", target)
        grace = seconds_of(request, "grace", default=_HOUR, most=_MAX_GRACE)
        value = _value(request.value)
        before = await self._credentials.get(request.name)
        if (value is None) is not bool(before.reference):
            raise invalid("value", "is to be set if, and only if, the credential has no reference")
        call.record("admin.credentials.rotate", target, details=_BEGUN)
        now, canary = await self._credentials.rotate(
            request.name, value=value, grace=grace, etag=request.etag or None
        )
        self._record(call, "rotate", before, now, canary)
        return admin.RotateCredentialResponse(credential=_told(now), canary=_canary(canary))

    async def _delete(
        self, call: Call, request: admin.DeleteCredentialRequest
    ) -> admin.DeleteCredentialResponse:
        target = f"credentials/{request.name}"
        call.permit("admin.credentials.write", target)
        before = await self._credentials.get(request.name)
        call.record("admin.credentials.delete", target, details=_BEGUN)
        await self._credentials.delete(request.name, etag=request.etag or None)
        self._record(call, "delete", before, None)
        return admin.DeleteCredentialResponse()

    @staticmethod
    def _record(
        call: Call,
        act: str,
        before: SecretInfo | None,
        after: SecretInfo | None,
        canary: Canary | None = None,
    ) -> None:
        """Records what was done. That it was begun stands in the trail already: what keeps the
        secrets has a transaction of its own, to which the trail does not belong."""
        name = (after or before or _NOBODY).name
        details = {"phase": "done"} | ({} if canary is None else {"canary": canary.verdict})
        call.record(
            f"admin.credentials.{act}",
            f"credentials/{name}",
            before=None if before is None else _digested(before),
            after=None if after is None else _digested(after),
            details=details,
        )


_NOBODY = SecretInfo(
    name="", etag="", reference="", canary_provider="", created_at=0, updated_at=0, versions=()
)


def _value(text: str) -> SecretText | None:
    """The secret in a request; None for the empty one."""
    if len(text.encode()) > _MAX_VALUE:
        raise invalid("value", f"is longer than {_MAX_VALUE} bytes")
    return SecretText(text) if text else None


def _digested(info: SecretInfo) -> bytes:
    """What the trail keeps a digest of: everything but the etag and times."""
    versions = [[each.version, each.fingerprint, each.state] for each in info.versions]
    return orjson.dumps([info.name, info.reference, info.canary_provider, versions])


def _told(info: SecretInfo) -> admin.Credential:
    return admin.Credential(
        name=info.name,
        etag=info.etag,
        create_time=_time(info.created_at),
        update_time=_time(info.updated_at),
        reference=info.reference,
        canary_provider=info.canary_provider,
        versions=[_version(each) for each in info.versions],
    )


def _version(version: SecretVersion) -> admin.CredentialVersion:
    return admin.CredentialVersion(
        version=version.version,
        fingerprint=version.fingerprint,
        state=_STATES[version.state],
        create_time=_time(version.created_at),
        grace_until=_time(version.grace_until),
        expire_time=_time(version.expires_at),
    )


def _time(microseconds: int | None) -> Timestamp | None:
    if microseconds is None:
        return None
    moment = Timestamp()
    moment.FromMicroseconds(microseconds)
    return moment


def _canary(canary: Canary) -> admin.CanaryResult:
    return admin.CanaryResult(verdict=_VERDICTS[canary.verdict], detail=canary.detail)
