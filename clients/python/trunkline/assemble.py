"""Joins the deltas of a streamed answer into the message that Generate would have returned."""

from trunkline import v1


class MessageAssembler:
    """Builds a message from deltas, which may come for several parts in turn.

    >>> assembler = MessageAssembler()
    >>> assembler.add(v1.StreamDelta(part_index=0, text="Hel"))
    >>> assembler.add(v1.StreamDelta(part_index=0, text="lo"))
    >>> assembler.message().parts[0].text
    'Hello'
    """

    def __init__(self) -> None:
        self._parts: dict[int, v1.Part] = {}
        self._sources: list[v1.Source] = []
        self._citations: list[v1.Citation] = []

    def add(self, delta: v1.StreamDelta) -> None:
        """Takes the next delta. One that sets no known kind is passed over."""
        kind = delta.WhichOneof("kind")
        if kind == "source":
            self._sources.append(delta.source)
            return
        if kind == "citation":
            self._citations.append(delta.citation)
            return
        part = self._parts.setdefault(delta.part_index, v1.Part())
        match kind:
            case "text":
                part.text += delta.text
            case "reasoning":
                part.reasoning.text += delta.reasoning
            case "tool_call":
                call = part.tool_call
                call.id = call.id or delta.tool_call.id
                call.name = call.name or delta.tool_call.name
                call.arguments_json += delta.tool_call.arguments_json
            case "signature":
                part.signature.CopyFrom(delta.signature)
            case "part":
                part.MergeFrom(delta.part)

    def message(self) -> v1.Message:
        """The assistant's message so far, its parts in order of part_index."""
        return v1.Message(
            role=v1.ROLE_ASSISTANT,
            parts=[self._parts[index] for index in sorted(self._parts)],
            sources=self._sources,
            citations=self._citations,
        )
