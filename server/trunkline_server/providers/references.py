"""What answers rest on: the sources of one answer and the words that cite them."""

from collections.abc import Sequence

from trunkline import v1


class References:
    """The sources and citations of one answer, in the order in which they come.

    A source that comes again, by its id and its address, stays one. What has not been handed
    out yet is taken as the deltas of a stream, or as a whole for a message.
    """

    __slots__ = ("_citations", "_fresh", "_places", "_sources")

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], int] = {}
        self._sources: list[v1.Source] = []
        self._citations: list[v1.Citation] = []
        self._fresh: list[v1.StreamDelta] = []

    def source(self, source: v1.Source) -> int:
        """Notes a source; gives its index. One without id and address is always another."""
        key = (source.id, source.uri)
        place = self._places.get(key) if any(key) else None
        if place is not None:
            return place
        place = self._places[key] = len(self._sources)
        self._sources.append(source)
        self._fresh.append(v1.StreamDelta(source=source))
        return place

    def cite(self, citation: v1.Citation, sources: Sequence[v1.Source]) -> None:
        """Notes a citation of some sources."""
        citation.source_indexes.extend(self.source(source) for source in sources)
        self._citations.append(citation)
        self._fresh.append(v1.StreamDelta(citation=citation))

    def fill(self, message: v1.Message) -> None:
        """Puts all of them into a message."""
        message.sources.extend(self._sources)
        message.citations.extend(self._citations)

    def take(self) -> list[v1.StreamDelta]:
        """What came since it was last asked."""
        fresh, self._fresh = self._fresh, []
        return fresh
