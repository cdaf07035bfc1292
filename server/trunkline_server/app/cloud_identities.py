"""Identities as the configuration has them, and what requests are authenticated with under them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import orjson

from trunkline_server.catalogue.compile import Endpoint
from trunkline_server.clock import Clock
from trunkline_server.engine import ports as engine
from trunkline_server.secrets.aws_identity import AwsIdentity
from trunkline_server.secrets.entra_identity import EntraIdentity
from trunkline_server.secrets.google_identity import GoogleIdentity
from trunkline_server.secrets.identities import Held, Identity
from trunkline_server.secrets.ports import Headers, SecretValue
from trunkline_server.settings import (
    AwsAuthSettings,
    CloudAuthSettings,
    EntraAuthSettings,
    Secret,
    cloud_secrets,
)
from trunkline_server.upstream.http import HttpRequest

if TYPE_CHECKING:
    from trunkline_server.upstream.sigv4 import AwsKeys

# The values of secrets, as far as they are here.
Values = Callable[[Secret], SecretValue | None]


class CloudCredential(ABC):
    """An engine.ports.Credential: other headers, and what the identity gives besides."""

    def __init__(self, inner: engine.Credential, held: Held) -> None:
        self._inner = inner
        self._held = held

    @property
    def headers(self) -> Headers:
        """As Credential.headers."""
        return self._inner.headers

    @property
    @abstractmethod
    def sign(self) -> engine.Sign:
        """As Credential.sign."""

    def refused(self, headers: Headers) -> Headers | None:
        """As Credential.refused."""
        self._held.doubted()
        return self._inner.refused(headers)

    def redacted(self, message: str, headers: Headers) -> str:
        """As Credential.redacted."""
        return self._inner.redacted(message, headers)


class BearerCredential(CloudCredential):
    """A token in the authorization header. A refused request is repeated under a newer token,
    if one has come meanwhile."""

    @property
    def headers(self) -> Headers:
        """As Credential.headers."""
        value = self._held.value
        if value is None:
            return self._inner.headers
        return (*self._inner.headers, ("authorization", f"Bearer {value.value}"))

    @property
    def sign(self) -> engine.Sign:
        """As Credential.sign: lets pass what has a valid token."""
        return self._checked

    def refused(self, headers: Headers) -> Headers | None:
        """As Credential.refused."""
        now = self.headers
        if now[-1] != headers[-1]:
            return now
        self._held.doubted()
        other = self._inner.refused(headers[:-1])
        return None if other is None else (*other, headers[-1])

    def redacted(self, message: str, headers: Headers) -> str:
        """As Credential.redacted."""
        message = self._inner.redacted(message, headers)
        tokens = {value.removeprefix("Bearer ") for name, value in headers if _is_token(name)}
        if self._held.value is not None:
            tokens.add(self._held.value.value)
        for token in tokens:
            message = message.replace(token, "[redacted]")
        return message

    def _checked(self, request: HttpRequest) -> HttpRequest:
        self._held.fresh()
        return request


class AwsCredential(CloudCredential):
    """A signature over each request."""

    def __init__(
        self, inner: engine.Credential, held: Held, service: str, region: str, clock: Clock
    ) -> None:
        super().__init__(inner, held)
        # An extra: others need not have it.
        from trunkline_server.upstream.sigv4 import AwsKeys, SigV4  # noqa: PLC0415

        self._parse = AwsKeys
        self._signing = SigV4(service, region, self._keys, clock.wall)
        self._read: tuple[SecretValue, AwsKeys] | None = None

    @property
    def sign(self) -> engine.Sign:
        """As Credential.sign."""
        return self._signing

    def redacted(self, message: str, headers: Headers) -> str:
        """As Credential.redacted."""
        message = self._inner.redacted(message, headers)
        if self._read is not None:
            _, secret_key, token = self._read[1]
            for secret in filter(None, (secret_key, token)):
                message = message.replace(secret, "[redacted]")
        return message

    def _keys(self) -> "AwsKeys":
        value = self._held.fresh()
        if self._read is None or self._read[0] is not value:
            self._read = value, self._parse(*orjson.loads(value.value))
        return self._read[1]


def credential_of(
    endpoint: Endpoint, held: Held, inner: engine.Credential, clock: Clock
) -> CloudCredential:
    """What an endpoint's requests are authenticated with; `inner` has their other headers."""
    auth = endpoint.cloud
    if isinstance(auth, AwsAuthSettings):
        return AwsCredential(inner, held, auth.service, auth.region, clock)
    return BearerCredential(inner, held)


def identity_of(auth: CloudAuthSettings, values: Values) -> Identity | None:
    """Who the router is to a cloud; None while a secret is still to come, since without it another
    identity might take its place."""
    if not all(values(secret) for _, secret in cloud_secrets(auth)):
        return None

    def text(secret: Secret | None) -> str:
        found = None if secret is None else values(secret)
        return "" if found is None else found.value

    if isinstance(auth, AwsAuthSettings):
        return AwsIdentity(
            region=auth.region,
            access_key=text(auth.access_key_id),
            secret_key=text(auth.secret_access_key),
            session_token=text(auth.session_token),
            profile=auth.profile,
            role_arn=auth.role_arn,
            external_id=auth.external_id,
            session_name=auth.session_name,
            duration=auth.duration,
            web_identity_token_file=auth.web_identity_token_file,
            sts_url=auth.sts_url,
        )
    if isinstance(auth, EntraAuthSettings):
        return EntraIdentity(
            scope=auth.scope,
            tenant_id=auth.tenant_id,
            client_id=auth.client_id,
            client_secret=text(auth.client_secret),
            client_certificate=text(auth.client_certificate),
            federated_token_file=auth.federated_token_file,
            authority=auth.authority,
        )
    return GoogleIdentity(auth.scopes, text(auth.credentials), auth.impersonate)


def _is_token(name: str) -> bool:
    return name == "authorization"
