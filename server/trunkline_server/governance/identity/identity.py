"""Who calls: keys, tokens and certificates, asked in turn."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from trunkline_server.governance.identity.keys import (
    PREFIX,
    KeyRing,
    bearer,
    digest_of,
    unauthenticated,
)
from trunkline_server.governance.identity.pending import KeysPendingError
from trunkline_server.governance.identity.principal import ANONYMOUS, Principal

if TYPE_CHECKING:
    # With them comes cryptography, which routers whose callers show keys need not load.
    from trunkline_server.governance.identity.certificates import Certificates
    from trunkline_server.governance.identity.tokens import Tokens

# What ServicerContext.auth_context gives; called only where certificates count.
AuthContext = Callable[[], Mapping[str, Iterable[bytes]]]

# A token may need its issuer's first keys, and then a new one.
_FETCHES = 2


class Identity:
    """Everything that tells callers in force. Immutable: a reload makes a new one.

    A bearer token, whether key or JWT, goes before the certificate of its connection: proxies
    and meshes have certificates of their own, and the token is nearer to the caller. A wrong
    token is refused even beside a good certificate. Where nothing is configured, everyone is
    anonymous.
    """

    def __init__(
        self,
        keys: KeyRing,
        tokens: "Tokens | None" = None,
        certificates: "Certificates | None" = None,
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._certificates = certificates
        self.required = keys.required or tokens is not None or certificates is not None

    def authenticate(self, authorization: str, auth_context: AuthContext, now: float) -> Principal:
        """The caller, from memory; `now` in Unix seconds.

        Raises TrunklineError: AUTHENTICATION, or SERVICE_UNAVAILABLE when an outage keeps it
        from being told; KeysPendingError when only a fetch that is under way can.
        """
        if not self.required:
            return ANONYMOUS
        if not authorization and self._certificates is not None:
            principal = self._certificates.authenticate(auth_context())
            if principal is not None:
                return principal
        token = bearer(authorization)
        digest = digest_of(token)
        principal = self._keys.find(digest, now)
        if principal is not None:
            return principal
        if self._tokens is None or token.startswith(PREFIX):
            raise unauthenticated("the key is not known")
        return self._tokens.authenticate(token, digest, now)

    async def authenticate_in_time(
        self, authorization: str, auth_context: AuthContext, wall: Callable[[], float]
    ) -> Principal:
        """As authenticate, but waits for the fetches that it takes, each within its timeout."""
        for _ in range(_FETCHES):
            try:
                return self.authenticate(authorization, auth_context, wall())
            except KeysPendingError as pending:
                await pending.fetched()
        return self.authenticate(authorization, auth_context, wall())
