"""Bindings: roles for callers, beside those that their keys, tokens or tenants give."""

from dataclasses import dataclass

from trunkline_server.governance.access.constraints import Patterns
from trunkline_server.governance.identity.principal import Principal
from trunkline_server.governance.patterns import any_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """Gives roles to callers who fit all that is set; None asks nothing.

    All are shell patterns, of which one must match; `*` matches what is empty too.
    """

    name: str
    roles: frozenset[str]
    caller: Patterns | None = None
    kind: Patterns | None = None
    tenant: Patterns | None = None
    project: Patterns | None = None
    user: Patterns | None = None
    service: Patterns | None = None

    def fits(self, who: Principal) -> bool:
        """Whether a caller is meant."""
        return all(
            patterns is None or any_of(patterns)(value) is not None
            for patterns, value in (
                (self.caller, who.name),
                (self.kind, who.kind),
                (self.tenant, who.tenant),
                (self.project, who.project),
                (self.user, who.user),
                (self.service, who.service),
            )
        )
