"""What answers of chat completions rest on: searches of OpenAI, OpenRouter, Perplexity and xAI.

OpenAI and OpenRouter annotate the message, whose offsets count characters; Perplexity lists what
it found beside the choices, with every chunk of a stream again, and xAI the addresses alone.
Recorded answers (tests/corpus/test_openai.py) confirm Perplexity's `citations`; the other shapes
are those of OpenAI's SDK and of OpenRouter's and Perplexity's documents.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from trunkline import v1
from trunkline_server.providers.openai_messages import Json
from trunkline_server.providers.openai_parts import text_of
from trunkline_server.providers.references import References


def note_sources(document: Json, references: References) -> None:
    """Notes what a body or a chunk lists beside its choices."""
    # Results first: they say more of the same addresses.
    for found in _list(document.get("search_results")):
        if isinstance(found, dict) and found.get("url"):
            references.source(
                v1.Source(
                    uri=text_of(found["url"]),
                    title=text_of(found.get("title")),
                    snippet=text_of(found.get("snippet")),
                    published=text_of(found.get("date")),
                )
            )
    for address in _list(document.get("citations")):
        if isinstance(address, str) and address:
            references.source(v1.Source(uri=address))


def note_annotations(message: Json, part_index: int, references: References) -> None:
    """Notes the citations of a message, or of a piece of one, whose text is the part at that
    index."""
    for annotation in _list(message.get("annotations")):
        cited = annotation.get("url_citation") if isinstance(annotation, dict) else None
        if isinstance(cited, dict) and cited.get("url"):
            source = v1.Source(
                uri=text_of(cited["url"]),
                title=text_of(cited.get("title")),
                snippet=text_of(cited.get("content")),
            )
            citation = v1.Citation(
                part_index=part_index,
                start=_place(cited, "start_index"),
                end=_place(cited, "end_index"),
            )
            references.cite(citation, (source,))


def text_place(parts: Iterable[v1.Part]) -> int:
    """Which of the parts is the text; 0 where there is none."""
    kinds = [part.WhichOneof("kind") for part in parts]
    return kinds.index("text") if "text" in kinds else 0


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _place(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    return value if type(value) is int and 0 <= value < 2**31 else 0
