"""From settings to what tells callers: keys, tokens of issuers, client certificates."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from trunkline_server.app.access import networks_of
from trunkline_server.clock import Clock
from trunkline_server.governance.identity.identity import Identity
from trunkline_server.governance.identity.keys import Key, KeyRing, LastUsed, RetiredSecret
from trunkline_server.settings import CertificateSettings, KeySettings, Settings
from trunkline_server.telemetry.issuers import IssuerLog
from trunkline_server.upstream.http import HttpClient

if TYPE_CHECKING:
    from trunkline_server.app.issuers import Issuers
    from trunkline_server.governance.identity.certificates import Certificates


class Identities:
    """Makes the Identity of each configuration, and keeps what outlives a reload: the keys of
    issuers that stay, and when callers' keys were last used. To be made on the event loop."""

    def __init__(self, http: HttpClient, clock: Clock, watch: IssuerLog) -> None:
        self._http = http
        self._clock = clock
        self._watch = watch
        # None: no configuration had any yet.
        self._issuers: Issuers | None = None
        self.last_used = LastUsed()

    def build(self, settings: Settings) -> Identity:
        """What tells callers by a configuration that was checked; `adopt` puts it in force."""
        return self._identity(settings, build_keys(settings, self.last_used))

    def build_admin(self, settings: Settings) -> Identity:
        """The same for the control plane, whose own keys open it too."""
        return self._identity(settings, build_admin_keys(settings, self.last_used))

    def _identity(self, settings: Settings, keys: KeyRing) -> Identity:
        if settings.issuers and self._issuers is None:
            # With it comes cryptography: 10 MB.
            from trunkline_server.app.issuers import Issuers  # noqa: PLC0415

            self._issuers = Issuers(self._http, self._clock, self._watch)
        tokens = None
        if settings.issuers and self._issuers is not None:
            tokens = self._issuers.tokens(settings.issuers)
        return Identity(keys, tokens, build_certificates(settings.certificates))

    def adopt(self, settings: Settings) -> None:
        """Fetches the keys of this configuration's issuers from now on, and of no others."""
        if self._issuers is not None:
            self._issuers.adopt(settings.issuers)

    async def close(self) -> None:
        """Ends all fetches."""
        if self._issuers is not None:
            await self._issuers.close()


def build_keys(settings: Settings, last_used: LastUsed | None = None) -> KeyRing:
    """The keys that callers may show. Where the store owns them, callers need one even while
    there is none: who removes the last key closes the door. Raises ValueError."""
    required = "keys" in settings.state.owns
    return KeyRing(map(_key, settings.keys), last_used, required=required)


def build_admin_keys(settings: Settings, last_used: LastUsed | None = None) -> KeyRing:
    """The keys that open the control plane: its own, and callers', as far as their roles reach.
    Raises ValueError."""
    own = [
        Key(
            key.name,
            key.hash,
            expires=key.expires,
            section="admin.keys",
            roles=frozenset(key.roles),
        )
        for key in settings.admin.keys
    ]
    return KeyRing([*own, *map(_key, settings.keys)], last_used, required=True)


def build_certificates(rules: Iterable[CertificateSettings]) -> "Certificates | None":
    """Whom client certificates stand for; None if they do for nobody."""
    found = tuple(rules)
    if not found:
        return None
    # As above.
    from trunkline_server.app.certificates import certificates_of  # noqa: PLC0415

    return certificates_of(found)


def _key(key: KeySettings) -> Key:
    return Key(
        key.name,
        key.hash,
        key.models,
        key.routes,
        key.expires,
        prefix=key.prefix,
        retired=tuple(RetiredSecret(old.hash, old.until) for old in key.retired),
        tenant=key.tenant,
        project=key.project,
        user=key.user,
        service=key.service,
        roles=frozenset(key.roles),
        scopes=_scopes(key.scopes),
        tier=key.tier,
        networks=networks_of(key.networks),
    )


def _scopes(scopes: tuple[str, ...]) -> frozenset[str] | None:
    return frozenset(scopes) if scopes else None
