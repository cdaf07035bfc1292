"""What models can do: the catalogue's entries, found by a model's id."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cache, lru_cache
from importlib import resources
from typing import Annotated

from trunkline_server.settings import list_of, read, read_records, record

# Every capability that has a name. What a request uses is derived from its content.
CAPABILITIES = frozenset(
    {
        "audio",
        "chat",
        "embedding",
        "file",
        "image_generation",
        "parallel_tools",
        "reasoning",
        "rerank",
        "speech",
        "streaming",
        "structured_output",
        "tools",
        "transcription",
        "vision",
    }
)
# What is assumed of a model that the catalogue does not know.
UNKNOWN_MODEL = frozenset({"chat", "streaming"})


# What makes a pattern fit more than one id.
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """One entry of models.yaml; 0 means unknown. Without capabilities nothing is known of the
    model but that it is not listed."""

    match: Annotated[tuple[str, ...], read.texts]
    capabilities: Annotated[tuple[str, ...], read.choices(*sorted(CAPABILITIES))] = ()
    context_tokens: Annotated[int, read.integer(1)] = 0
    max_output_tokens: Annotated[int, read.integer(1)] = 0
    quality: Annotated[float, read.number(0, 1)] = 0.0
    # Whether a configuration made from the environment offers it.
    listed: Annotated[bool, read.boolean] = True
    flags: Annotated[dict[str, str | int | bool], read.flags] = field(default_factory=dict)
    # The dialect that it is spoken to in, by hosts that speak it. Empty: the host's.
    dialect: Annotated[str, read.text] = ""


class ModelCatalogue:
    """The entries by section."""

    def __init__(self, sections: Mapping[str, tuple[ModelEntry, ...]]) -> None:
        self._sections = {
            name: tuple((_compile(entry.match), entry) for entry in entries)
            for name, entries in sections.items()
        }
        # Ids come from callers too, so what is remembered of them is bounded.
        self._find = lru_cache(maxsize=4096)(self._search)

    def find(self, kind: str, model_id: str) -> ModelEntry | None:
        """The entry for a model of a kind of provider; None for a model not known.

        Kinds without a section serve others' models: theirs is the first entry of any section
        that fits the last part of the id and says what the model can do.
        """
        return self._find(kind, model_id.lower())

    @property
    def dialects(self) -> frozenset[str]:
        """Every dialect that an entry names."""
        named = (entry.dialect for entries in self._sections.values() for _, entry in entries)
        return frozenset(filter(None, named))

    def _search(self, kind: str, model_id: str) -> ModelEntry | None:
        if kind in self._sections:
            return self._first(kind, model_id)
        name = model_id.rpartition("/")[2]
        found = (self._first(section, name) for section in self._sections)
        # What vendors do not list of their own says nothing of another's model with such a name.
        return next((entry for entry in found if entry is not None and entry.capabilities), None)

    def named(self, kind: str) -> tuple[str, ...]:
        """The model ids that the entries of a kind's own section name in full, in their order."""
        return tuple(
            pattern
            for _, entry in self._sections.get(kind, ())
            for pattern in entry.match
            if not _WILD.search(pattern)
        )

    def _first(self, section: str, model_id: str) -> ModelEntry | None:
        for pattern, entry in self._sections[section]:
            if pattern.match(model_id):
                return entry
        return None


def _compile(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(translate(pattern.lower()) for pattern in patterns))


@cache
def model_catalogue() -> ModelCatalogue:
    """The catalogue's models. Raises ConfigError for an entry that is wrong."""
    return read_models(resources.files(__package__).joinpath("models.yaml").read_text("utf-8"))


def read_models(text: str, name: str = "models.yaml") -> ModelCatalogue:
    """The models in a text. Raises ConfigError with every problem found."""
    return ModelCatalogue(read_records(text, name, list_of(record(ModelEntry))))
