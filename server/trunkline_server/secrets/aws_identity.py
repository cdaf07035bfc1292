"""Keys that requests to AWS are signed with, by botocore: given, of a profile, of the machine, or
of a role.

Each fetch begins anew, so that it finds what was replaced on disk meanwhile and gives temporary
keys their whole life. After the STS API reference and botocore's guide to credentials.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from trunkline_server.secrets.identities import library
from trunkline_server.secrets.ports import (
    SecretRefusedError,
    SecretUnavailableError,
    SecretValue,
)

# After the STS API reference, common errors and those of AssumeRole: what another try does not
# change.
_REFUSALS = frozenset(
    {
        "AccessDenied",
        "ExpiredTokenException",
        "IDPRejectedClaim",
        "InvalidClientTokenId",
        "InvalidIdentityToken",
        "MalformedPolicyDocument",
        "RegionDisabledException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
        "ValidationError",
    }
)


class _NoIdentityError(Exception):
    """Nothing in the chain gave any keys."""


@dataclass(frozen=True, slots=True)
class AwsIdentity:
    """Whose keys: see settings.AwsAuthSettings, whose fields these are."""

    region: str
    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    profile: str = ""
    role_arn: str = ""
    external_id: str = ""
    session_name: str = "trunkline"
    duration: float = 3600.0
    web_identity_token_file: Path | None = None
    sts_url: str = ""

    def fetch(self, what: str, timeout: float) -> SecretValue:
        """As Identity.fetch: a JSON list of access key, secret key and session token."""
        core = library(what, "botocore.exceptions", "aws")
        try:
            return _keys(self, timeout)
        except core.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in _REFUSALS:
                raise SecretRefusedError(f"{what}: AWS refuses: {code}") from None
            raise SecretUnavailableError(f"{what}: AWS fails: {code}") from None
        except (core.EndpointConnectionError, core.HTTPClientError) as error:
            kind = type(error).__name__
            raise SecretUnavailableError(f"{what}: AWS cannot be reached: {kind}") from None
        except core.CredentialRetrievalError:
            raise SecretUnavailableError(
                f"{what}: AWS gives no keys to this identity now"
            ) from None
        except core.ProfileNotFound:
            raise SecretRefusedError(
                f"{what}: the profile {self.profile!r} is not in the AWS configuration"
            ) from None
        except core.BotoCoreError as error:
            kind = type(error).__name__
            raise SecretRefusedError(f"{what}: the identity is not set up: {kind}") from None
        except (OSError, UnicodeDecodeError) as error:
            kind = type(error).__name__
            raise SecretUnavailableError(
                f"{what}: {self.web_identity_token_file} cannot be read: {kind}"
            ) from None
        except _NoIdentityError:
            raise SecretRefusedError(
                f"{what}: AWS finds no identity on this machine; set access_key_id and"
                " secret_access_key, or profile, or run where there is a role"
            ) from None


def _keys(identity: AwsIdentity, timeout: float) -> SecretValue:
    from botocore.session import Session  # noqa: PLC0415 - An extra, which is there by now.

    session = Session(profile=identity.profile or None)
    # It may take long to answer where there is none, and is asked by the chain only.
    session.set_config_variable("metadata_service_timeout", min(timeout / 2, 2))
    if identity.access_key:
        token = identity.session_token or None
        session.set_credentials(identity.access_key, identity.secret_key, token)
    file = identity.web_identity_token_file
    if file is not None:
        token = file.read_text(encoding="ascii").strip()
        sts = _sts(session, identity, timeout, signed=False)
        return _assumed(sts.assume_role_with_web_identity, identity, {"WebIdentityToken": token})
    if identity.role_arn:
        external = {"ExternalId": identity.external_id} if identity.external_id else {}
        if session.get_credentials() is None:
            raise _NoIdentityError
        return _assumed(_sts(session, identity, timeout).assume_role, identity, external)
    found = session.get_credentials()
    if found is None:
        raise _NoIdentityError
    keys = found.get_frozen_credentials()
    # Only credentials that are renewed have one. botocore tells of it nowhere else.
    expires = getattr(found, "_expiry_time", None)
    return _value(
        keys.access_key, keys.secret_key, keys.token or "", expires and expires.timestamp()
    )


def _assumed(
    assume: Callable[..., Any], identity: AwsIdentity, proof: dict[str, str]
) -> SecretValue:
    reply = assume(
        RoleArn=identity.role_arn,
        RoleSessionName=identity.session_name,
        DurationSeconds=round(identity.duration),
        **proof,
    )
    keys = reply["Credentials"]
    return _value(
        keys["AccessKeyId"],
        keys["SecretAccessKey"],
        keys["SessionToken"],
        keys["Expiration"].timestamp(),
    )


def _sts(session: Any, identity: AwsIdentity, timeout: float, *, signed: bool = True) -> Any:
    import botocore  # noqa: PLC0415 - An extra, which is there by now.
    from botocore.config import Config  # noqa: PLC0415

    config = Config(
        connect_timeout=timeout / 2,
        read_timeout=timeout,
        retries={"total_max_attempts": 1},
        signature_version=None if signed else botocore.UNSIGNED,
    )
    return session.create_client(
        "sts",
        region_name=identity.region,
        endpoint_url=identity.sts_url or None,
        config=config,
    )


def _value(access: str, secret: str, token: str, expires: float | None) -> SecretValue:
    text = orjson.dumps([access, secret, token]).decode()
    # An access key's id is no secret, and a new session has another one.
    return SecretValue(text, access, expires)
