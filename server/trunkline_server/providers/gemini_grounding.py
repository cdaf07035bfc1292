"""What Gemini's answers rest on, and what its filters say of them.

The vendor tells both beside the content: `groundingMetadata` (searches), `citationMetadata`
(recited texts), `urlContextMetadata` (pages read) and `safetyRatings`. Its offsets count the bytes
of a part's text in UTF-8. Shapes follow `Candidate` of Vertex AI's discovery document and recorded
answers (tests/corpus/test_gemini.py).
"""

from collections.abc import Iterable, Mapping, Sequence

from trunkline import v1
from trunkline_server.providers.gemini_json import Json, as_object, list_at, object_at, text_at
from trunkline_server.providers.references import References

# By name and by number, as an enum may come.
_CATEGORIES: Mapping[int, str] = {
    7: "HARM_CATEGORY_HARASSMENT",
    8: "HARM_CATEGORY_HATE_SPEECH",
    9: "HARM_CATEGORY_SEXUALLY_EXPLICIT",
    10: "HARM_CATEGORY_DANGEROUS_CONTENT",
    11: "HARM_CATEGORY_CIVIC_INTEGRITY",
}
_PROBABILITIES: Mapping[int, str] = {1: "NEGLIGIBLE", 2: "LOW", 3: "MEDIUM", 4: "HIGH"}
_FOUND = frozenset({"MEDIUM", "HIGH"})


def note_grounding(candidate: Json, texts: Mapping[int, str], references: References) -> None:
    """Notes the sources and citations of an answer; `texts` are its text parts by index."""
    if "groundingMetadata" in candidate:
        _searches(object_at(candidate, "groundingMetadata"), texts, references)
    if "citationMetadata" in candidate:
        _recitations(object_at(candidate, "citationMetadata"), texts, references)
    if "urlContextMetadata" in candidate:
        for entry in list_at(object_at(candidate, "urlContextMetadata"), "urlMetadata"):
            page = text_at(as_object(entry, "urlMetadata"), "retrievedUrl")
            if page:
                references.source(v1.Source(uri=page))


def findings(
    ratings: Iterable[object], subject: v1.FilterSubject.ValueType
) -> list[v1.FilterFinding]:
    """The findings in a list of safety ratings."""
    found = []
    for entry in ratings:
        rating = as_object(entry, "safetyRatings")
        severity = _word(rating.get("probability"), _PROBABILITIES)
        blocked = rating.get("blocked") is True
        found.append(
            v1.FilterFinding(
                subject=subject,
                category=_word(rating.get("category"), _CATEGORIES),
                severity=severity,
                detected=blocked or severity in _FOUND,
                filtered=blocked,
            )
        )
    return found


def _word(value: object, names: Mapping[int, str]) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return names.get(value, str(value))
    return value if isinstance(value, str) else ""


def _searches(grounding: Json, texts: Mapping[int, str], references: References) -> None:
    indexes = [
        references.source(_chunk(as_object(chunk, "groundingChunks")))
        for chunk in list_at(grounding, "groundingChunks")
    ]
    for entry in list_at(grounding, "groundingSupports"):
        support = as_object(entry, "groundingSupports")
        citation = _cited(object_at(support, "segment"), texts)
        citation.source_indexes.extend(
            indexes[place]
            for place in list_at(support, "groundingChunkIndices")
            if isinstance(place, int) and 0 <= place < len(indexes)
        )
        references.cite(citation, ())


def _chunk(chunk: Json) -> v1.Source:
    for kind in ("web", "retrievedContext", "maps"):
        if kind in chunk:
            found = object_at(chunk, kind)
            return v1.Source(
                id=text_at(found, "placeId") or text_at(found, "documentName"),
                uri=text_at(found, "uri"),
                title=text_at(found, "title") or text_at(found, "domain"),
                snippet=text_at(found, "text"),
            )
    return v1.Source()


def _recitations(recited: Json, texts: Mapping[int, str], references: References) -> None:
    # The Gemini API and Vertex AI call the list otherwise.
    for name in ("citationSources", "citations"):
        for entry in list_at(recited, name):
            origin = as_object(entry, name)
            source = v1.Source(uri=text_at(origin, "uri"), title=text_at(origin, "title"))
            references.cite(_cited(origin, texts), [source])


def _cited(segment: Json, texts: Mapping[int, str]) -> v1.Citation:
    """The citation of a segment, whose part is named among the vendor's parts or not at all.

    The vendor's own text of the segment decides where it says one: streams cut parts otherwise.
    """
    start, end = _offset(segment, "startIndex"), _offset(segment, "endIndex")
    wanted = text_at(segment, "text")
    indexes = sorted(texts)
    part = _offset(segment, "partIndex")
    if part in texts:
        indexes = [part, *(index for index in indexes if index != part)]
    for index in indexes:
        place = _characters(texts[index], start, end)
        if place and (not wanted or texts[index][place[0] : place[1]] == wanted):
            return v1.Citation(part_index=index, start=place[0], end=place[1])
    for index in indexes:
        at = texts[index].find(wanted) if wanted else -1
        if at >= 0:
            return v1.Citation(part_index=index, start=at, end=at + len(wanted))
    return v1.Citation(part_index=indexes[0] if indexes else 0)


def _characters(text: str, start: int, end: int) -> Sequence[int]:
    """The character offsets of two byte offsets; nothing where they are not of this text."""
    data = text.encode()
    if not 0 <= start < end <= len(data):
        return ()
    try:
        return len(data[:start].decode()), len(data[:end].decode())
    except UnicodeDecodeError:
        return ()


def _offset(segment: Json, name: str) -> int:
    value = segment.get(name, 0)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
