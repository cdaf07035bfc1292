"""Who calls: one value, however the caller proved it."""

from dataclasses import dataclass, field
from enum import StrEnum

from trunkline_server.governance.addresses import Networks
from trunkline_server.governance.patterns import Match, any_of

ROUTE_PREFIX = "route:"

_EVERYTHING = ("*",)


class Kind(StrEnum):
    """How a caller proved who it is."""

    KEY = "key"
    TOKEN = "token"  # noqa: S105 - The word, no secret.
    CERTIFICATE = "certificate"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Whoever calls. Equal principals have equal rights, so that what follows from them may be
    remembered by them; the hash is computed once.

    `name` is for logs and messages, `account` for limits, budgets and the ledger, and `group` for
    metrics: those of keys are their names. `source` is the configured record that vouches for
    the caller, such as `keys[team-a]` or `issuers[corp]`, and begins the names of the rules that
    are its own. Empty texts are unknown. `roles` are those that the source gives. `scopes` are
    patterns of permissions beyond which no role reaches; None sets no bound and an empty set
    permits nothing. `models` and `routes` are shell patterns over public names. `networks` are
    those the caller must come from; None is anywhere.
    """

    kind: Kind
    name: str
    source: str
    tenant: str = ""
    project: str = ""
    user: str = ""
    service: str = ""
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] | None = None
    tier: str = ""
    models: tuple[str, ...] = _EVERYTHING
    routes: tuple[str, ...] = _EVERYTHING
    networks: Networks | None = None
    account: str = field(init=False, repr=False, compare=False)
    group: str = field(init=False, repr=False, compare=False)
    _model: Match = field(init=False, repr=False, compare=False)
    _route: Match = field(init=False, repr=False, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        set_once = object.__setattr__
        # Whoever signs a token or a certificate chooses the name in it: it is nobody else's, and
        # there may be as many as there are people.
        own = self.kind in {Kind.KEY, Kind.ANONYMOUS}
        set_once(self, "account", self.name if own else f"{self.source}/{self.name}")
        set_once(self, "group", self.name if own else self.source)
        set_once(self, "_model", any_of(self.models))
        set_once(self, "_route", any_of(self.routes))
        named = (self.kind, self.name, self.source, self.tenant, self.project, self.user)
        rights = (self.service, self.roles, self.scopes, self.tier, self.models, self.routes)
        set_once(self, "_hash", hash((named, rights, self.networks)))

    def __hash__(self) -> int:
        return self._hash

    def permits(self, model: str) -> bool:
        """Whether the caller may use a model, named as in GenerateRequest.model.

        The empty name is permitted: the choice is then made among permitted models.
        """
        if not model:
            return True
        if model.startswith(ROUTE_PREFIX):
            return self._route(model[len(ROUTE_PREFIX) :]) is not None
        return self._model(model) is not None


ANONYMOUS = Principal(kind=Kind.ANONYMOUS, name="anonymous", source="anonymous")
