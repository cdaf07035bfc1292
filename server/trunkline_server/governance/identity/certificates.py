"""Client certificates: from what TLS has verified to a principal, by configured patterns."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from cryptography import x509
from cryptography.x509.oid import NameOID

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.governance.addresses import Networks
from trunkline_server.governance.identity.principal import Kind, Principal

# The property of gRPC's auth_context that holds the peer's certificate. TLS puts it there only
# once it has verified the chain; without `client_ca` nobody is asked for one.
PEER_CERTIFICATE = "x509_pem_cert"
# Certificates that are remembered; all go when there are more.
_REMEMBERED = 4096

# Fields of a principal that a part of a pattern may name, and that may be fixed.
FIELDS = ("name", "tenant", "project", "user", "service", "tier")
_PART = re.compile(r"\{(\w+)\}|(\*)")

Identity = Literal["uri", "dns", "subject"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRule:
    """Whom a certificate stands for if one of its names fits a pattern.

    `identity` says which names: the URIs or the DNS names among its subject alternative names,
    or its subject's common name. In `pattern`, `{field}` takes a part up to the next `/`, `.`
    or `:`, and becomes that field of the principal; `*` takes such a part and drops it. All else
    stands for itself: `spiffe://acme.example/ns/{project}/sa/{service}`. `fixed` gives fields
    whatever the certificate says; without a name, the matched text is the name.
    """

    rule: str
    identity: Identity
    pattern: str
    fixed: Mapping[str, str] = field(default_factory=dict)
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] | None = None
    models: tuple[str, ...] = ("*",)
    routes: tuple[str, ...] = ("*",)
    networks: Networks | None = None
    _match: Callable[[str], re.Match[str] | None] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        named = [part for part, _ in _PART.findall(self.pattern) if part]
        for name in (*named, *self.fixed):
            if name not in FIELDS:
                raise ValueError(f"{name!r} is none of {', '.join(FIELDS)}")
        if len(set(named)) < len(named) or set(named) & set(self.fixed):
            raise ValueError("a field is given twice")
        object.__setattr__(self, "_match", re.compile(_expression(self.pattern)).fullmatch)

    def principal(self, name: str) -> Principal | None:
        """The principal of a certificate with such a name; None if it does not fit."""
        match = self._match(name)
        if match is None:
            return None
        texts = {"name": name, **match.groupdict(), **self.fixed}
        return Principal(
            kind=Kind.CERTIFICATE,
            source=f"certificates[{self.rule}]",
            **texts,
            roles=self.roles,
            scopes=self.scopes,
            models=self.models,
            routes=self.routes,
            networks=self.networks,
        )


class Certificates:
    """The rules in force, the first that fits counting. Immutable but for its memo, which holds
    what each certificate, byte for byte, stands for."""

    def __init__(self, rules: Iterable[CertificateRule] = ()) -> None:
        self._rules = tuple(rules)
        self._known: dict[bytes, Principal | None] = {}

    def __bool__(self) -> bool:
        return bool(self._rules)

    def authenticate(self, auth_context: Mapping[str, Iterable[bytes]]) -> Principal | None:
        """The caller that a verified client certificate stands for, from what
        `ServicerContext.auth_context()` gives; None without a certificate.

        Raises TrunklineError with AUTHENTICATION for one that fits no rule.
        """
        certificate = next(iter(auth_context.get(PEER_CERTIFICATE, ())), None)
        if certificate is None:
            return None
        try:
            principal = self._known[certificate]
        except KeyError:
            principal = self._read(certificate)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[certificate] = principal
        if principal is None:
            raise TrunklineError(
                v1.ERROR_REASON_AUTHENTICATION,
                "the client certificate names nobody who is known",
                metadata={"scheme": "mtls"},
            )
        return principal

    def _read(self, pem: bytes) -> Principal | None:
        try:
            names = _names(x509.load_pem_x509_certificate(pem))
        except ValueError:
            # TLS takes some that this parser refuses, such as doubled extensions.
            return None
        for rule in self._rules:
            for name in names[rule.identity]:
                principal = rule.principal(name)
                if principal is not None:
                    return principal
        return None


def _names(certificate: x509.Certificate) -> dict[Identity, list[str]]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        uris, hosts = [], []
    else:
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        hosts = names.get_values_for_type(x509.DNSName)
    subjects = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return {"uri": uris, "dns": hosts, "subject": [str(one.value) for one in subjects]}


def _expression(pattern: str) -> str:
    """The regular expression of a pattern."""
    parts = []
    end = 0
    for match in _PART.finditer(pattern):
        parts.append(re.escape(pattern[end : match.start()]))
        parts.append(f"(?P<{match[1]}>[^/.:]+)" if match[1] else "[^/.:]+")
        end = match.end()
    parts.append(re.escape(pattern[end:]))
    return "".join(parts)
