"""What an answer in the Cohere dialect cites, as the contract's sources and citations."""

from collections.abc import Mapping

import orjson

from trunkline import v1
from trunkline_server.providers.cohere_json import Json, count_at, object_at, objects_at, text_at
from trunkline_server.providers.references import References

# The key of the part that each type of citation is in, where its content_index is not told.
_PARTS: Mapping[str, str] = {
    "TEXT_CONTENT": "text",
    "THINKING_CONTENT": "thinking",
    "PLAN": "plan",
}


def read_citation(citation: Json, parts: Mapping[int | str, int], references: References) -> None:
    """Notes a citation and its sources.

    `parts` are the indexes of the message's parts: by the vendor's index of the content, and
    the first of each kind by "text", "thinking" and "plan".
    """
    kind = text_at(citation, "type") or "TEXT_CONTENT"
    index = citation.get("content_index")
    key: int | str = _PARTS.get(kind, "text")
    if kind != "PLAN" and isinstance(index, int) and index in parts:
        key = index
    note = v1.Citation(
        part_index=parts.get(key, 0),
        start=count_at(citation, "start"),
        end=count_at(citation, "end"),
        # The words of the answer itself: the vendor quotes them, and not the source.
    )
    references.cite(note, [_source(source) for source in objects_at(citation, "sources")])


def _source(source: Json) -> v1.Source:
    """A document that was given, or what a tool gave."""
    if text_at(source, "type") == "tool":
        output = object_at(source, "tool_output")
        return v1.Source(
            id=text_at(source, "id"),
            uri=text_at(output, "url"),
            title=text_at(output, "title"),
            snippet=_excerpt(output, "content"),
        )
    document = object_at(source, "document")
    return v1.Source(
        id=text_at(source, "id") or text_at(document, "id"),
        uri=text_at(document, "url"),
        title=text_at(document, "title"),
        snippet=_excerpt(document, "text"),
    )


def _excerpt(content: Json, usual: str) -> str:
    """The text under its usual name, else under another that is used, else all of it as JSON."""
    for name in (usual, "snippet", "text", "content"):
        if text := text_at(content, name):
            return text
    rest = {name: value for name, value in content.items() if name not in {"id", "url", "title"}}
    return orjson.dumps(rest).decode() if rest else ""
