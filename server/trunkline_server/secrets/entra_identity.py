"""Tokens of Microsoft Entra ID, by azure-identity.

Each fetch makes its credential anew, since azure-identity would else give the token it has until
five minutes before its end, and keep what it has read from files.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trunkline_server.secrets.identities import library
from trunkline_server.secrets.ports import (
    SecretRefusedError,
    SecretUnavailableError,
    SecretValue,
)

# Entra's own code of an error, which says more than the exception's class and quotes nothing.
_CODE = re.compile(r"AADSTS\d+")
# Those after which another try may do: a fault of Entra's own, too many requests. After
# learn.microsoft.com/entra/identity-platform/reference-error-codes.
_PASSING = frozenset({"AADSTS90033", "AADSTS90055", "AADSTS50196"})


@dataclass(frozen=True, slots=True)
class EntraIdentity:
    """Whose tokens: see settings.EntraAuthSettings, whose fields these are."""

    scope: str
    tenant_id: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    client_certificate: str = field(default="", repr=False)
    federated_token_file: Path | None = None
    authority: str = ""

    def fetch(self, what: str, timeout: float) -> SecretValue:
        """As Identity.fetch: an access token."""
        identity = library(what, "azure.identity", "azure")
        core = library(what, "azure.core.exceptions", "azure")
        try:
            with self._credential(identity, timeout) as credential:
                token = credential.get_token(self.scope)
        except identity.CredentialUnavailableError:
            raise SecretUnavailableError(
                f"{what}: no managed identity answers on this machine; set tenant_id, client_id"
                " and a client_secret, or run where there is one"
            ) from None
        except core.ClientAuthenticationError as error:
            # The library's word for everything, a broken connection too; Entra gives codes.
            found = _CODE.search(error.message or "")
            if found is None:
                raise SecretUnavailableError(f"{what}: Entra gives no answer") from None
            if found[0] in _PASSING:
                raise SecretUnavailableError(f"{what}: Entra fails: {found[0]}") from None
            raise SecretRefusedError(f"{what}: Entra refuses: {found[0]}") from None
        except core.HttpResponseError as error:
            raise SecretUnavailableError(
                f"{what}: Entra fails with HTTP {error.status_code}"
            ) from None
        except core.AzureError as error:
            kind = type(error).__name__
            raise SecretUnavailableError(f"{what}: Entra cannot be reached: {kind}") from None
        except OSError as error:
            kind = type(error).__name__
            raise SecretUnavailableError(
                f"{what}: {self.federated_token_file} cannot be read: {kind}"
            ) from None
        except ValueError:
            # The library's word for a tenant, an authority or a certificate that is none. It
            # may quote them.
            raise SecretRefusedError(
                f"{what}: the tenant, the authority or the certificate is malformed"
            ) from None
        return SecretValue(token.token, f"until-{token.expires_on}", float(token.expires_on))

    def _credential(self, identity: Any, timeout: float) -> Any:
        options: dict[str, Any] = {
            "connection_timeout": timeout / 2,
            "read_timeout": timeout,
            # Retries are the keeper's.
            "retry_total": 0,
        }
        if self.authority:
            # One of another cloud need not be known to the public one.
            options |= {"authority": self.authority, "disable_instance_discovery": True}
        if self.client_secret:
            return identity.ClientSecretCredential(
                self.tenant_id, self.client_id, self.client_secret, **options
            )
        if self.client_certificate:
            return identity.CertificateCredential(
                self.tenant_id,
                self.client_id,
                certificate_data=self.client_certificate.encode(),
                **options,
            )
        if self.federated_token_file is not None:
            return identity.WorkloadIdentityCredential(
                tenant_id=self.tenant_id,
                client_id=self.client_id,
                token_file_path=str(self.federated_token_file),
                **options,
            )
        return identity.ManagedIdentityCredential(client_id=self.client_id or None, **options)
