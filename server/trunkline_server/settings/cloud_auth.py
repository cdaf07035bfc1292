"""The configuration of identities that clouds know: AWS's, Microsoft Entra's and Google's."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

from trunkline_server.settings import values as read
from trunkline_server.settings.records import record
from trunkline_server.settings.secrets import Secret, resolve_secret, secret_path
from trunkline_server.settings.values import Context, Reader
from trunkline_server.settings.yaml_source import Node


def _document(node: Node, context: Context) -> Secret:
    """A reference to a secret of several lines, such as a key file, whose value may be still to
    be fetched."""
    if node.kind != "text" or not node.text.startswith(("env:", "file:")):
        return read.provider_secret(node, context)
    read.check_permitted(node, node.text, context)
    if node.text.startswith("file:"):
        context.files.append(secret_path(node.text, context.base))
    return resolve_secret(node.text, context.env, context.base, header=False)


def _token_file(node: Node, context: Context) -> Path:
    """The path of a file that is read whenever it is needed, because others replace it."""
    path = read.folder(node, context)
    read.check_permitted(node, f"file:{path}", context)
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsAuthSettings:
    """`providers.NAME.auth.aws`: requests signed with SigV4.

    Without keys and profile the identity is the machine's, as botocore finds it: environment,
    web identity, container, instance.
    """

    # What it is called in a configuration.
    name: ClassVar[str] = "aws"

    # The name under which the service is signed for.
    service: Annotated[str, read.text] = "bedrock"
    # Empty: the provider's region.
    region: Annotated[str, read.text] = ""
    # References, as api_key is one. Temporary keys have a session token.
    access_key_id: Annotated[Secret | None, read.provider_secret] = None
    secret_access_key: Annotated[Secret | None, read.provider_secret] = None
    session_token: Annotated[Secret | None, read.provider_secret] = None
    # A profile of the machine's AWS configuration.
    profile: Annotated[str, read.text] = ""
    # The role that is assumed: with the web identity in a file, or else with the identity above,
    # which may be another account's.
    role_arn: Annotated[str, read.text] = ""
    external_id: Annotated[str, read.text] = ""
    session_name: Annotated[str, read.text] = "trunkline"
    # For how long.
    duration: Annotated[float, read.duration(900, 43_200)] = 3600.0
    web_identity_token_file: Annotated[Path | None, _token_file] = None
    # Where roles are assumed. Empty: STS in the region.
    sts_url: Annotated[str, read.base_url] = ""

    def complaints(self) -> Iterator[tuple[str, str]]:
        """What is wrong between the fields: a field's name, or nothing, and why."""
        if (self.access_key_id is None) != (self.secret_access_key is None):
            yield "", "needs both access_key_id and secret_access_key, or neither"
        if self.session_token is not None and self.access_key_id is None:
            yield "session_token", "needs the access_key_id that it belongs to"
        if self.profile and self.access_key_id is not None:
            yield "profile", "stands beside access_key_id; write one of them"
        if self.web_identity_token_file is not None and not self.role_arn:
            yield "web_identity_token_file", "needs role_arn, the role that it opens"
        if self.external_id and (not self.role_arn or self.web_identity_token_file is not None):
            yield "external_id", "is for a role_arn that is assumed with keys"
        elif self.external_id and not 2 <= len(self.external_id) <= 1224:
            yield "external_id", "has 2 to 1224 characters"

    @property
    def ambient(self) -> bool:
        """Whether the identity is the machine's own."""
        return self.access_key_id is None


@dataclass(frozen=True, slots=True, kw_only=True)
class EntraAuthSettings:
    """`providers.NAME.auth.entra`: tokens of Microsoft Entra ID.

    With a client secret or certificate the identity is that service principal; with a token
    file a workload identity; else the machine's managed identity, which `client_id` chooses
    where there are several.
    """

    # What it is called in a configuration.
    name: ClassVar[str] = "entra"

    tenant_id: Annotated[str, read.text] = ""
    client_id: Annotated[str, read.text] = ""
    client_secret: Annotated[Secret | None, read.provider_secret] = None
    # A reference to a certificate and its private key as PEM.
    client_certificate: Annotated[Secret | None, _document] = None
    federated_token_file: Annotated[Path | None, _token_file] = None
    # What the tokens are for.
    scope: Annotated[str, read.text] = "https://cognitiveservices.azure.com/.default"
    # Who gives them. Empty: the public cloud's; sovereign clouds have their own.
    authority: Annotated[str, read.base_url] = ""

    def complaints(self) -> Iterator[tuple[str, str]]:
        """As AwsAuthSettings.complaints."""
        proofs = [
            name
            for name in ("client_secret", "client_certificate", "federated_token_file")
            if getattr(self, name) is not None
        ]
        if len(proofs) > 1:
            yield proofs[1], f"stands beside {proofs[0]}; write one of them"
        if proofs and not (self.tenant_id and self.client_id):
            yield proofs[0], "needs tenant_id and client_id"
        if not proofs and self.tenant_id:
            yield "tenant_id", "is for a client_secret, client_certificate or federated_token_file"

    @property
    def ambient(self) -> bool:
        """As AwsAuthSettings.ambient."""
        return self.client_secret is None and self.client_certificate is None


@dataclass(frozen=True, slots=True, kw_only=True)
class GoogleAuthSettings:
    """`providers.NAME.auth.google`: access tokens of Google Cloud.

    Without credentials the identity is the machine's, as google-auth finds it: the application
    default credentials.
    """

    # What it is called in a configuration.
    name: ClassVar[str] = "google"

    # A reference to a key of a service account, or to a configuration of workload identity
    # federation, as JSON.
    credentials: Annotated[Secret | None, _document] = None
    # The service account that is impersonated.
    impersonate: Annotated[str, read.text] = ""
    scopes: Annotated[tuple[str, ...], read.texts] = (
        "https://www.googleapis.com/auth/cloud-platform",
    )

    def complaints(self) -> Iterator[tuple[str, str]]:
        """As AwsAuthSettings.complaints."""
        yield from ()

    @property
    def ambient(self) -> bool:
        """As AwsAuthSettings.ambient."""
        return self.credentials is None


CloudAuthSettings = AwsAuthSettings | EntraAuthSettings | GoogleAuthSettings
C = TypeVar("C", AwsAuthSettings, EntraAuthSettings, GoogleAuthSettings)


def cloud_reader(cls: type[C]) -> Reader[C]:
    """A reader of one cloud's identity. What is stored may use the machine's own only where
    state.references permits `identity:NAME`: whoever writes providers chooses their hosts."""
    inner = record(cls)

    def reader(node: Node, context: Context) -> C:
        found = inner(node, context)
        for field, message in found.complaints():
            context.report(node.entries.get(field, node), message)
        if found.ambient:
            read.check_permitted(node, f"identity:{cls.name}", context)
        return found

    return reader


def cloud_secrets(auth: CloudAuthSettings) -> Iterator[tuple[str, Secret]]:
    """The secrets of an identity, each with its field's name, in the order of the fields."""
    for row in fields(auth):
        value = getattr(auth, row.name)
        if isinstance(value, Secret):
            yield row.name, value
