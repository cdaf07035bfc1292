"""What a configuration may refer to beside itself."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from trunkline_server.settings.providers import AuthSettings


@dataclass(frozen=True, slots=True)
class ProviderKind:
    """What a catalogue row says that a configuration may rely on. `env` names the variables
    that may hold its API key."""

    dialect: str
    base_url: str
    env: tuple[str, ...] = ()
    auth: AuthSettings | None = None
    region: str = ""
    # Its URLs in some regions, where they are others.
    base_urls: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Known:
    """What a configuration may refer to beside itself; None means that it is not checked."""

    kinds: Mapping[str, ProviderKind] = field(default_factory=dict)
    dialects: Set[str] | None = None
    price_providers: Set[str] | None = None
