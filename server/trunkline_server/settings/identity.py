"""The configuration of who calls: keys, issuers of tokens, client certificates."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from trunkline_server.settings import values as read
from trunkline_server.settings.networks import cidrs
from trunkline_server.settings.problems import InvalidValueError, suggestion
from trunkline_server.settings.records import blank, list_of, record
from trunkline_server.settings.values import Context, Reader
from trunkline_server.settings.yaml_source import Node

# Fields of a caller that one text fills, and that several do; governance.claims says the same.
TEXT_FIELDS = ("name", "tenant", "project", "user", "service", "tier")
LIST_FIELDS = ("roles", "scopes")
# What tokens may be signed by; governance.identity.jwks.ALGORITHMS says the same.
ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)

_PART = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetiredSecretSettings:
    """`keys[].retired[]`: the secret that a key had before, which still opens for a while."""

    # As the key's own.
    hash: Annotated[bytes, read.key_hash]
    # Unix seconds; in the file a date or a time.
    until: Annotated[float, read.moment]
    # How the secret begins, for people.
    prefix: Annotated[str, read.text_or_empty] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings:
    """`keys[]`: one key that callers may show, known by its hash alone."""

    # For logs, metrics and reports.
    name: Annotated[str, read.text]
    # sha256: and 64 hexadecimal digits, as `trunkline hash-key` prints.
    hash: Annotated[bytes, read.key_hash]
    # How the key begins, for people.
    prefix: Annotated[str, read.text_or_empty] = ""
    # Former secrets that still open.
    retired: Annotated[
        tuple[RetiredSecretSettings, ...], list_of(record(RetiredSecretSettings))
    ] = ()
    # Shell patterns over public model names, and over names of routes.
    models: Annotated[tuple[str, ...], read.texts] = ("*",)
    routes: Annotated[tuple[str, ...], read.texts] = ("*",)
    # Unix seconds; in the file a date or a time. None: never.
    expires: Annotated[float | None, read.moment] = None
    # Who pays, for limits, budgets and the ledger. Empty: nobody in particular.
    tenant: Annotated[str, read.text] = ""
    project: Annotated[str, read.text] = ""
    # Whom it stands for.
    user: Annotated[str, read.text] = ""
    service: Annotated[str, read.text] = ""
    # The roles that it gives. Empty: access.default_roles.
    roles: Annotated[tuple[str, ...], read.texts] = ()
    # Shell patterns of permissions beyond which no role reaches. Empty: no bound.
    scopes: Annotated[tuple[str, ...], read.texts] = ()
    # The tier that bounds it. Empty: the tenant's.
    tier: Annotated[str, read.text] = ""
    # The networks that it may be shown from. Empty: anywhere.
    networks: Annotated[tuple[str, ...], cidrs] = ()


def key(node: Node, context: Context) -> KeySettings:
    """A record of a key, which never holds the key itself."""
    if node.kind != "map" or "key" in node.entries:
        context.report(
            node.entries.get("key", node),
            "keys do not stand in this file, their hashes do; write name and hash, and make the "
            f"hash with: {read.HASH_COMMAND}",
        )
        return blank(KeySettings)
    return record(KeySettings)(node, context)


def _issuer(node: Node, context: Context) -> str:
    """An issuer, or where its keys are: https, or http to this machine alone."""
    value = read.text(node, context)
    try:
        parts = urlsplit(value)
        host = parts.hostname or ""
        known = bool(host) and parts.username is None and not parts.query and not parts.fragment
        secure = parts.scheme == "https" or (parts.scheme == "http" and _is_here(host))
    except ValueError:
        known = secure = False
    if not known or not value.isascii() or any(letter.isspace() for letter in value):
        raise InvalidValueError("write a URL such as https://login.example.com/realms/main")
    if not secure:
        raise InvalidValueError("write an https URL: who can change the keys is whom they trust")
    return value


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _fields(*names: str) -> Reader[dict[str, str]]:
    """A map of some fields of a caller to texts."""

    def read_fields(node: Node, context: Context) -> dict[str, str]:
        if node.kind != "map":
            raise InvalidValueError(f"write a map of {', '.join(names)}")
        found = {}
        for name, value in node.entries.items():
            if name not in names:
                hint = suggestion(name, names) or f"; known are {', '.join(names)}"
                context.report(value, f"is not known here{hint}")
                continue
            try:
                found[name] = read.text(value, context)
            except InvalidValueError as error:
                context.report(value, str(error))
        return found

    return read_fields


def _roles_of(node: Node, context: Context) -> dict[str, tuple[str, ...]]:
    """A map of an issuer's words to roles."""
    if node.kind != "map":
        raise InvalidValueError("write a map of the issuer's words to roles")
    return {name: read.texts(roles, context) for name, roles in node.entries.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSettings:
    """`issuers.NAME`: an OpenID Connect issuer whose tokens callers may show."""

    # The `iss` of its tokens, exactly.
    issuer: Annotated[str, _issuer]
    # One of them must be in a token's `aud`.
    audiences: Annotated[tuple[str, ...], read.texts]
    # Where its keys are. Empty: as its discovery document says.
    jwks_uri: Annotated[str, _issuer] = ""
    algorithms: Annotated[tuple[str, ...], read.choices(*ALGORITHMS)] = ("RS256", "ES256", "EdDSA")
    # How far its clock may be from ours.
    skew: Annotated[float, read.duration(0, 600)] = 60.0
    # How often its keys are fetched, how long the last ones serve while that fails, how often at
    # most they are fetched for a key that is not known, and how long a fetch may take.
    refresh: Annotated[float, read.duration(1, 86_400)] = 600.0
    max_stale: Annotated[float, read.duration(1, 31 * 86_400.0)] = 86_400.0
    forced_pause: Annotated[float, read.duration(0.001, 3600)] = 10.0
    fetch_timeout: Annotated[float, read.duration(0.001, 60)] = 5.0
    # Which claim fills which field of the caller; a dot reaches into a claim.
    claims: Annotated[dict[str, str], _fields(*TEXT_FIELDS, *LIST_FIELDS)] = field(
        default_factory=lambda: {"name": "sub", "user": "sub"}
    )
    # Fields of all its callers, whatever their tokens say.
    fixed: Annotated[dict[str, str], _fields(*TEXT_FIELDS)] = field(default_factory=dict)
    # Fields without which a token is refused.
    required: Annotated[tuple[str, ...], read.choices(*TEXT_FIELDS)] = ("name",)
    # Roles of all its callers; and what the roles in its tokens stand for. None: themselves.
    roles: Annotated[tuple[str, ...], read.texts] = ()
    role_of: Annotated[dict[str, tuple[str, ...]] | None, _roles_of] = None
    # Scopes without it are somebody else's; it is taken off.
    scope_prefix: Annotated[str, read.text] = ""
    # Bounds of all its callers, as those of keys.
    models: Annotated[tuple[str, ...], read.texts] = ("*",)
    routes: Annotated[tuple[str, ...], read.texts] = ("*",)
    networks: Annotated[tuple[str, ...], cidrs] = ()


def _pattern(node: Node, context: Context) -> str:
    """A pattern of a certificate's name with {field} and * in it."""
    value = read.text(node, context)
    named = _PART.findall(value)
    for name in named:
        if name not in TEXT_FIELDS:
            hint = suggestion(name, TEXT_FIELDS) or f"; known are {', '.join(TEXT_FIELDS)}"
            raise InvalidValueError(f"{{{name}}} is not known here{hint}")
    if len(set(named)) < len(named):
        raise InvalidValueError("names a field twice")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateSettings:
    """`certificates[]`: whom client certificates stand for; the first that fits counts."""

    name: Annotated[str, read.text]
    # Which of a certificate's names: uri and dns are alternative names, subject the common name.
    identity: Annotated[str, read.choice("uri", "dns", "subject")]
    # {field} takes a part up to the next / . or : as that field of the caller, * drops one.
    pattern: Annotated[str, _pattern]
    # Fields of all whom it fits.
    fixed: Annotated[dict[str, str], _fields(*TEXT_FIELDS)] = field(default_factory=dict)
    # As for keys.
    roles: Annotated[tuple[str, ...], read.texts] = ()
    scopes: Annotated[tuple[str, ...], read.texts] = ()
    models: Annotated[tuple[str, ...], read.texts] = ("*",)
    routes: Annotated[tuple[str, ...], read.texts] = ("*",)
    networks: Annotated[tuple[str, ...], cidrs] = ()


def fields_in(pattern: str) -> Mapping[str, None]:
    """The fields that a certificate's pattern names."""
    return dict.fromkeys(_PART.findall(pattern))
