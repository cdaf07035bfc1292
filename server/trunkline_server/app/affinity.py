"""Prefix affinity of one worker: where prompts went, and what that tells of the next one."""

from trunkline import v1
from trunkline_server.cache.affinity import BLOCK_TOKENS, PrefixAffinity, prefix_blocks
from trunkline_server.cache.key import scope_of
from trunkline_server.clock import Clock
from trunkline_server.engine.call import Call
from trunkline_server.governance.identity.principal import Principal
from trunkline_server.routing.warm import Warmth
from trunkline_server.settings import PrefixAffinitySettings


class PromptAffinity:
    """What is remembered of prompts; an engine.ports.Affinity."""

    def __init__(self, settings: PrefixAffinitySettings, clock: Clock) -> None:
        self.settings = settings
        self._seen = PrefixAffinity(settings.blocks, settings.ttl)
        self._clock = clock

    def warmth(self, call: Call, request: v1.GenerateRequest) -> Warmth | None:
        """As engine.ports.Affinity."""
        if not isinstance(call.caller, Principal):
            return None
        call.blocks = blocks = prefix_blocks(request, scope_of(call.caller))
        if not blocks:
            return None
        matched = self._seen.affinity(blocks, self._clock.monotonic())
        if not matched:
            return None
        tokens = {name: depth * BLOCK_TOKENS for name, depth in matched.items()}
        return Warmth(tokens, self.settings.load)

    def answered(self, call: Call, deployment: str) -> None:
        """As engine.ports.Affinity."""
        if call.blocks:
            self._seen.saw(call.blocks, deployment, self._clock.monotonic())


def affinity_of(
    settings: PrefixAffinitySettings, clock: Clock, before: PromptAffinity | None
) -> PromptAffinity | None:
    """The affinity of a configuration, which keeps what it remembers while nothing of it has
    changed; None if it wants none."""
    if not settings.blocks:
        return None
    if before is not None and before.settings == settings:
        return before
    return PromptAffinity(settings, clock)
