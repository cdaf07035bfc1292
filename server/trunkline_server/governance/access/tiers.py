"""Subscription tiers: what a tenant or key has paid for."""

from dataclasses import dataclass

from trunkline import v1
from trunkline_server.errors import TrunklineError

# What a tier may withhold: capabilities as routing names them, and what the router adds.
FEATURES = frozenset(
    {
        "streaming",
        "tools",
        "parallel_tools",
        "vision",
        "audio",
        "file",
        "structured_output",
        "reasoning",
        "embedding",
        "image_generation",
        "transcription",
        "speech",
        "rerank",
        "hedge",
        "cache",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """The bounds of a tier.

    `models` and `routes` are shell patterns over public names. `features` None is all of them.
    Token counts of 0 are unbounded: `max_output_tokens` is the most asked for one answer, and
    `max_context_tokens` prompt and answer together.
    """

    name: str
    models: tuple[str, ...] = ("*",)
    routes: tuple[str, ...] = ("*",)
    features: frozenset[str] | None = None
    max_output_tokens: int = 0
    max_context_tokens: int = 0

    def __post_init__(self) -> None:
        unknown = sorted((self.features or frozenset()) - FEATURES)
        if unknown:
            raise ValueError(f"{unknown[0]!r} is none of {', '.join(sorted(FEATURES))}")
        if self.max_output_tokens < 0 or self.max_context_tokens < 0:
            raise ValueError("token counts must not be negative")

    @property
    def bounds_requests(self) -> bool:
        """Whether `check` can ever refuse."""
        bounded = self.max_output_tokens or self.max_context_tokens
        return self.features is not None or bool(bounded)

    def permits(self, feature: str) -> bool:
        """Whether the tier has a feature, such as `hedge`, that the router would use unasked.

        What is not among FEATURES is no tier's to withhold.
        """
        return self.features is None or feature in self.features or feature not in FEATURES

    def room(self, input_tokens: int) -> int:
        """The most that an answer to a prompt of so many tokens may be asked for; 0: no bound."""
        left = [self.max_output_tokens] if self.max_output_tokens else []
        if self.max_context_tokens:
            # A prompt that leaves no room is one that `check` refuses.
            left.append(max(self.max_context_tokens - input_tokens, 1))
        return min(left, default=0)

    def check(self, used: frozenset[str], input_tokens: int, output_tokens: int) -> None:
        """Raises TrunklineError with AUTHORIZATION, naming the rule, for a request beyond it.

        `used` are the capabilities that the request needs; `output_tokens` is the room that it
        asks for, 0 if it does not say: the router is then to ask for no more than `room`.
        """
        if self.features is not None and not used <= self.features:
            for feature in sorted(used - self.features):
                if feature in FEATURES:
                    raise self._denial("features", f"does not include {feature}", feature)
        most = self.max_output_tokens
        if most and output_tokens > most:
            raise self._denial("max_output_tokens", f"allows {most} output tokens", str(most))
        most = self.max_context_tokens
        if most and input_tokens + output_tokens > most:
            raise self._denial("max_context_tokens", f"allows {most} tokens", str(most))

    def _denial(self, bound: str, problem: str, value: str) -> TrunklineError:
        return TrunklineError(
            v1.ERROR_REASON_AUTHORIZATION,
            f"the tier {self.name!r} {problem}",
            metadata={"rule": f"tiers[{self.name}].{bound}", "tier": self.name, "bound": value},
        )
