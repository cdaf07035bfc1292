"""What one call asks of the routing core."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from trunkline import v1

if TYPE_CHECKING:
    from trunkline_server.routing.warm import Warmth
from trunkline_server.routing.snapshot import Deployment

# What the call is; empty when it may be either, as in a dry run that does not say.
Kind = Literal["chat", "embedding", "image_generation", "transcription", "speech", "rerank", ""]


class Constraint(Protocol):
    """What a rule that others keep asks of the deployment that serves a call.

    A value: hashable, and equal ones exclude the same deployments, for good. Pools are
    remembered under it.
    """

    def excludes(self, row: Deployment, /) -> str:
        """The name of the rule that keeps a deployment out; empty if none does."""
        ...

    def __hash__(self) -> int: ...


@dataclass(slots=True)
class Query:
    """The part of a request that routing looks at, already checked for ranges.

    Token counts of 0 are unknown; ceilings and floors of 0 and empty names ask for nothing.
    `kind` and, for streams, "streaming" are demanded as capabilities beside those named.
    """

    model: str  # As in GenerateRequest.model.
    input_tokens: int = 0
    output_tokens: int = 0  # The room asked for the answer.
    kind: Kind = "chat"
    stream: bool = False
    capabilities: frozenset[str] = frozenset()
    max_cost_per_token: float = 0.0  # USD.
    max_latency_ms: int = 0
    data_residency: str = ""
    min_quality: float = 0.0
    strategy: v1.Strategy.ValueType = v1.STRATEGY_UNSPECIFIED
    allowed_providers: tuple[str, ...] = ()
    denied_providers: tuple[str, ...] = ()
    no_fallback: bool = False
    models: frozenset[str] | None = None  # Public models the caller's key may use; None: all.
    constraints: tuple[Constraint, ...] = ()  # All of them hold.
    warmth: "Warmth | None" = None  # Who has the prompt's beginning; None: nobody was asked.
    units: v1.Usage | None = None  # The most it consumes; None: its tokens tell.
