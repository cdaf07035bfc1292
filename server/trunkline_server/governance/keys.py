"""Bearer keys: who calls, and which models and routes that caller may use."""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import translate

from trunkline import v1
from trunkline_server.errors import TrunklineError

_ROUTE_PREFIX = "route:"


_Match = Callable[[str], re.Match[str] | None]


# Callers are told apart by identity: each key ring has its own.
@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """One configured key, of which only the SHA-256 digest is known.

    `models` and `routes` are shell patterns over public names; `expires` is in Unix seconds.
    """

    name: str
    digest: bytes
    models: tuple[str, ...] = ("*",)
    routes: tuple[str, ...] = ("*",)
    expires: float | None = None
    _model: _Match = field(init=False, repr=False)
    _route: _Match = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_model", _any_of(self.models))
        object.__setattr__(self, "_route", _any_of(self.routes))

    def permits(self, model: str) -> bool:
        """Whether the key may use a model, named as in GenerateRequest.model.

        The empty name is permitted: the choice is then made among permitted models.
        """
        if not model:
            return True
        if model.startswith(_ROUTE_PREFIX):
            return self._route(model.removeprefix(_ROUTE_PREFIX)) is not None
        return self._model(model) is not None


@dataclass(frozen=True, slots=True, eq=False)
class Anonymous:
    """The caller of a router that knows no keys."""

    name: str = "anonymous"

    def permits(self, _model: str) -> bool:
        """Everything is permitted."""
        return True


Principal = Key | Anonymous


class KeyRing:
    """The keys in force. Immutable: a reload makes a new one."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._by_digest = {key.digest: key for key in keys}
        self._anonymous = None if self._by_digest else Anonymous()

    @property
    def required(self) -> bool:
        """Whether callers must show a key."""
        return self._anonymous is None

    def authenticate(self, authorization: str, now: float) -> Principal:
        """The caller that an `authorization` header names; `now` in Unix seconds.

        Raises TrunklineError with AUTHENTICATION. Lookup is by digest, so that the time it
        takes tells nothing of the keys.
        """
        if self._anonymous is not None:
            return self._anonymous
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            problem = "has no bearer key" if authorization else "is missing"
            raise _unauthenticated(f"the authorization metadata {problem}")
        key = self._by_digest.get(digest_of(token.strip()))
        if key is None:
            raise _unauthenticated("the key is not known")
        if key.expires is not None and now >= key.expires:
            raise _unauthenticated(f"the key {key.name!r} has expired")
        return key


def digest_of(token: str) -> bytes:
    """The digest under which a key is kept."""
    return hashlib.sha256(token.encode()).digest()


def _any_of(patterns: Iterable[str]) -> _Match:
    """Matches whole names that fit one of some shell patterns; case counts."""
    return re.compile("|".join(map(translate, patterns)) or "(?!)").match


def authorize(caller: Principal, model: str) -> None:
    """Raises TrunklineError with AUTHORIZATION, naming the rule, unless the caller may use
    the model."""
    if caller.permits(model):
        return
    kind = "routes" if model.startswith(_ROUTE_PREFIX) else "models"
    raise TrunklineError(
        v1.ERROR_REASON_AUTHORIZATION,
        f"the key {caller.name!r} may not use {model!r}",
        metadata={"key": caller.name, "model": model, "rule": f"keys[{caller.name}].{kind}"},
    )


def _unauthenticated(problem: str) -> TrunklineError:
    return TrunklineError(v1.ERROR_REASON_AUTHENTICATION, problem, metadata={"scheme": "bearer"})
