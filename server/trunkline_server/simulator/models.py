"""The simulated models and what they can do."""

from dataclasses import dataclass

from trunkline_server.simulator.embedding import DIMENSIONS


@dataclass(frozen=True, slots=True)
class Model:
    """One simulated model. Token limits as vendors state them."""

    id: str
    title: str
    context_tokens: int = 128_000
    max_output_tokens: int = 16_384
    chat: bool = True
    embedding: bool = False
    vision: bool = True
    images: bool = False
    transcripts: bool = False
    speech: bool = False
    rerank: bool = False


MODELS = {
    model.id: model
    for model in (
        Model("sim-large", "Simulated Large"),
        Model("sim-small", "Simulated Small", 32_000, 8_192, vision=False),
        Model(
            "sim-embed", f"Simulated Embedding, {DIMENSIONS} dimensions", 8_192, 0,
            chat=False, embedding=True, vision=False,
        ),
        Model("sim-image", "Simulated Pictures", 32_000, 0, chat=False, images=True),
        Model(
            "sim-transcribe", "Simulated Transcripts", 0, 0,
            chat=False, vision=False, transcripts=True,
        ),
        Model("sim-speech", "Simulated Speech", 4_096, 0, chat=False, vision=False, speech=True),
        Model("sim-rerank", "Simulated Reranking", 8_192, 0, chat=False, vision=False, rerank=True),
    )
}  # fmt: skip

# Any other name is answered too, with every ability, so that scripts may use names at will.
_ANYTHING = Model(
    "sim-anything", "Simulated",
    embedding=True, images=True, transcripts=True, speech=True, rerank=True,
)  # fmt: skip


def honest_name(name: str) -> str:
    """The name under which an answer goes out: it never passes for a vendor's own model."""
    return name if name.startswith("sim-") else f"sim-{name}"


def find(name: str) -> Model:
    """What the model of this name can do."""
    return MODELS.get(name, _ANYTHING)
