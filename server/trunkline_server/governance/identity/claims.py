"""From a token's claims to a principal, by configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trunkline_server.governance.addresses import Networks
from trunkline_server.governance.identity.principal import Kind, Principal

# Fields of a principal that a claim may fill with one text.
TEXT_FIELDS = ("name", "tenant", "project", "user", "service", "tier")
# And with several; a text is split at its spaces, as OAuth's `scope` is.
LIST_FIELDS = ("roles", "scopes")
_MAX_TEXT = 256
_MAX_LIST = 256

Claims = Mapping[str, Any]


class ClaimError(ValueError):
    """A claim that is missing or is not of the kind it must be; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimMap:
    """How an issuer's claims fill a principal.

    `claims` maps fields to claims. A claim with a dot that is not there by its whole name is
    looked up by its parts: `realm_access.roles` is `roles` within `realm_access`. `fixed` gives
    fields whatever the token says. `required` names fields that must not stay empty.

    With `role_of`, the claimed roles are the issuer's words, each of which stands for some of
    ours, and those it does not map are nothing. Scopes without `scope_prefix` are somebody
    else's and left out; the prefix itself is taken off. `models`, `routes` and `networks` bound
    every caller of the issuer.
    """

    claims: Mapping[str, str] = field(default_factory=lambda: {"name": "sub", "user": "sub"})
    fixed: Mapping[str, str] = field(default_factory=dict)
    required: tuple[str, ...] = ("name",)
    roles: tuple[str, ...] = ()
    role_of: Mapping[str, tuple[str, ...]] | None = None
    scope_prefix: str = ""
    models: tuple[str, ...] = ("*",)
    routes: tuple[str, ...] = ("*",)
    networks: Networks | None = None

    def __post_init__(self) -> None:
        known = {*TEXT_FIELDS, *LIST_FIELDS}
        if "name" not in {*self.claims, *self.fixed}:
            raise ValueError("claims lack name")
        for what, names, allowed in (
            ("claims", self.claims, known),
            ("fixed", self.fixed, set(TEXT_FIELDS)),
            ("required", self.required, set(TEXT_FIELDS)),
        ):
            unknown = sorted(set(names) - allowed)
            if unknown:
                raise ValueError(f"{what} names {unknown[0]!r}, which no claim fills")

    def principal(self, claims: Claims, source: str) -> Principal:
        """The principal that the claims of a verified token describe; raises ClaimError."""
        texts = {
            name: self.fixed.get(name) or _text(claims, self.claims.get(name))
            for name in TEXT_FIELDS
        }
        for name in self.required:
            if not texts[name]:
                raise ClaimError(f"the token lacks the claim {self.claims.get(name, name)!r}")
        return Principal(
            kind=Kind.TOKEN,
            source=source,
            **texts,
            roles=self._roles(claims),
            scopes=self._scopes(claims),
            models=self.models,
            routes=self.routes,
            networks=self.networks,
        )

    def _roles(self, claims: Claims) -> frozenset[str]:
        claimed = _texts(claims, self.claims.get("roles"))
        if self.role_of is None:
            return frozenset({*self.roles, *claimed})
        mapped = {role for word in claimed for role in self.role_of.get(word, ())}
        return frozenset({*self.roles, *mapped})

    def _scopes(self, claims: Claims) -> frozenset[str] | None:
        if "scopes" not in self.claims:
            return None
        prefix = self.scope_prefix
        claimed = _texts(claims, self.claims["scopes"])
        return frozenset(one[len(prefix) :] for one in claimed if one.startswith(prefix))


def _find(claims: Claims, path: str | None) -> Any:
    """The value of a claim; None if it is not there."""
    if path is None:
        return None
    if path in claims:
        return claims[path]
    value: Any = claims
    for part in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def _text(claims: Claims, path: str | None) -> str:
    value = _find(claims, path)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise ClaimError(f"the claim {path!r} is no text of at most {_MAX_TEXT} characters")
    return value


def _texts(claims: Claims, path: str | None) -> list[str]:
    value = _find(claims, path)
    if value is None:
        return []
    if isinstance(value, str):
        value = value.split()
    if not isinstance(value, list) or len(value) > _MAX_LIST:
        raise ClaimError(f"the claim {path!r} is no list of at most {_MAX_LIST} texts")
    if not all(isinstance(one, str) and len(one) <= _MAX_TEXT for one in value):
        raise ClaimError(f"the claim {path!r} holds what is no text")
    return value
