"""Access tokens of Google Cloud, by google-auth.

Each fetch makes its credentials anew, so that it finds what was replaced on disk meanwhile.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC
from functools import partial
from typing import Any

import orjson

from trunkline_server.secrets.identities import library
from trunkline_server.secrets.ports import (
    SecretRefusedError,
    SecretUnavailableError,
    SecretValue,
)


@dataclass(frozen=True, slots=True)
class GoogleIdentity:
    """Whose tokens: see settings.GoogleAuthSettings, whose fields these are."""

    scopes: tuple[str, ...]
    credentials: str = field(default="", repr=False)
    impersonate: str = ""

    def fetch(self, what: str, timeout: float) -> SecretValue:
        """As Identity.fetch: an access token."""
        errors = library(what, "google.auth.exceptions", "gcp")
        transport = library(what, "google.auth.transport.requests", "gcp")
        session = library(what, "requests", "gcp").Session()
        try:
            with session:
                request = partial(transport.Request(session), timeout=timeout)
                found = self._credentials(what, request)
                found.refresh(request)
        except (errors.MalformedError, ValueError, KeyError):
            # It may quote the key.
            raise SecretRefusedError(f"{what}: the credentials are malformed") from None
        except errors.DefaultCredentialsError:
            raise SecretRefusedError(
                f"{what}: Google finds no application default credentials on this machine; set"
                " credentials, or run where there are some"
            ) from None
        except errors.RefreshError as error:
            told = _told(error)
            if error.retryable:
                raise SecretUnavailableError(f"{what}: Google fails: {told}") from None
            raise SecretRefusedError(f"{what}: Google refuses: {told}") from None
        except errors.GoogleAuthError as error:
            kind = type(error).__name__
            raise SecretUnavailableError(f"{what}: Google cannot be reached: {kind}") from None
        expires = found.expiry.replace(tzinfo=UTC).timestamp()
        return SecretValue(found.token, f"until-{expires:.0f}", expires)

    def _credentials(self, what: str, request: Callable[..., Any]) -> Any:
        if self.credentials:
            found = self._of_document(what, orjson.loads(self.credentials))
        else:
            auth = library(what, "google.auth", "gcp")
            found, _ = auth.default(scopes=list(self.scopes), request=request)
        if not self.impersonate:
            return found
        impersonated = library(what, "google.auth.impersonated_credentials", "gcp")
        return impersonated.Credentials(found, self.impersonate, list(self.scopes))

    def _of_document(self, what: str, document: Any) -> Any:
        scopes = list(self.scopes)
        kind = document.get("type") if isinstance(document, dict) else None
        if kind == "service_account":
            module = library(what, "google.oauth2.service_account", "gcp")
            return module.Credentials.from_service_account_info(document, scopes=scopes)
        if kind == "external_account":
            source = document.get("credential_source") or {}
            of_aws = str(source.get("environment_id", "")).startswith("aws")
            name = "google.auth.aws" if of_aws else "google.auth.identity_pool"
            return library(what, name, "gcp").Credentials.from_info(document, scopes=scopes)
        if kind == "authorized_user":
            module = library(what, "google.oauth2.credentials", "gcp")
            return module.Credentials.from_authorized_user_info(document, scopes=scopes)
        raise SecretRefusedError(
            f"{what}: the credentials are no key of a service account, no configuration of"
            " workload identity federation and no authorized user"
        )


def _told(error: Exception) -> str:
    """OAuth's word for an error (RFC 6749, 5.2), which quotes nothing, or its class."""
    detail = error.args[1] if len(error.args) > 1 else None
    code = detail.get("error") if isinstance(detail, dict) else None
    return code if isinstance(code, str) and len(code) < 64 else type(error).__name__
