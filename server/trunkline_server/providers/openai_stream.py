"""Reads streamed answers in the OpenAI dialect.

The shapes are those of recorded streams (tests/corpus/test_openai.py). Hosts differ in how they
tell parallel tool calls apart, in where they put the usage, and in their end mark.
"""

from collections.abc import Sequence
from typing import Any

from trunkline import v1
from trunkline_server.errors import UpstreamError
from trunkline_server.providers.openai_decode import finish_reason
from trunkline_server.providers.openai_errors import reported_error
from trunkline_server.providers.openai_filters import Findings
from trunkline_server.providers.openai_messages import Json
from trunkline_server.providers.openai_parts import (
    ReasoningDetail,
    audio_part,
    call_fields,
    call_signature,
    content_pieces,
    decode_base64,
    detail_entries,
    image_parts,
    load,
    made_call_id,
    reasoning_text,
    senseless,
    tells_text,
    text_of,
)
from trunkline_server.providers.openai_sources import note_annotations, note_sources
from trunkline_server.providers.openai_usage import read_usage, true_total_tokens
from trunkline_server.providers.references import References

# What most deltas hold at most.
_PLAIN_FIELDS = frozenset({"content", "role"})
_REASONING_FIELDS = frozenset({"reasoning", "reasoning_content", "reasoning_details"})


class _Call:
    """One tool call under way. It is held back until its name is known."""

    __slots__ = ("announced", "id", "name", "number", "part_index", "pending", "signature")

    def __init__(self, part_index: int, number: int) -> None:
        self.part_index = part_index
        self.number = number
        self.id = ""
        self.name = ""
        self.pending = ""
        self.announced = False
        self.signature: v1.Signature | None = None


class OpenAIStreamDecoder:
    """Turns the chunks of one answer into deltas; see providers.codec.StreamDecoder.

    The stream has ended in order when `[DONE]` or a finish_reason was seen: some hosts leave
    out the one or the other.
    """

    def __init__(self) -> None:
        self.model = ""
        self.response_id = ""
        self.usage = v1.Usage()
        self._part_count = 0
        # Part indexes of what a message has at most one of: text, reasoning and refusal.
        self._singles: dict[str, int] = {}
        self._detail: ReasoningDetail | None = None
        self._detail_part: int | None = None
        # In the order of their start, and by what a fragment may name them with.
        self._calls: list[_Call] = []
        self._call_by_key: dict[int | str, _Call] = {}
        self._last_call: _Call | None = None
        self._audio: tuple[int, bytearray] | None = None
        self._audio_id = ""
        self._transcript = ""
        self._finish_word = ""
        self._refused = False
        self._answered = False
        self._done = False
        self._raw_usage: Json | None = None
        self._findings = Findings()
        self._true_total = 0
        self._references = References()

    def feed(self, event: str, data: bytes) -> Sequence[v1.StreamDelta]:
        """The deltas of one event; raises as StreamDecoder.feed says."""
        if self._done or not data:
            return ()
        deltas: list[v1.StreamDelta] = []
        if data == b"[DONE]":
            self._done = True
            self._close(deltas)
            return deltas
        chunk = load(data)
        # A chunk with choices and without any of these reports no error.
        if event == "error" or "choices" not in chunk or "error" in chunk or "x_groq" in chunk:
            _raise_reported(event, chunk)
        if not self.model:
            self.model = text_of(chunk.get("model"))
        if not self.response_id:
            self.response_id = text_of(chunk.get("id"))
        choices = chunk.get("choices")
        if not self._answered:
            self._findings.of_prompt(chunk)
        if choices:
            self._choices(choices, deltas)
        if "citations" in chunk or "search_results" in chunk:
            note_sources(chunk, self._references)
            deltas += self._references.take()
        if self._raw_usage is not None or chunk.get("usage") or "x_groq" in chunk:
            self._take_usage(chunk)
        return deltas

    def finish(self) -> v1.StreamEnd:
        """The end of the answer; raises as StreamDecoder.finish says."""
        if not self._done and not self._finish_word:
            raise UpstreamError(
                v1.ERROR_REASON_STREAM_INTERRUPTED,
                "the provider's stream ended before its end mark",
                http_status=200,
            )
        if not self._answered:
            raise senseless("the stream held no choice")
        return v1.StreamEnd(
            finish_reason=finish_reason(self._finish_word, refused=self._refused),
            vendor_finish_reason=self._finish_word,
            usage=self.usage if self._raw_usage is not None else None,
            model=self.model,
            filter_findings=self._findings,
        )

    def _choices(self, choices: Any, deltas: list[v1.StreamDelta]) -> None:
        if not isinstance(choices, list):
            raise senseless("the choices are not a list")
        for choice in choices:
            if not isinstance(choice, dict):
                raise senseless("a choice is not an object")
            # One answer is asked for; a second one would only mix into the first.
            if choice.get("index"):
                continue
            if "error" in choice:
                _raise_reported("", choice)
            self._answered = True
            delta = choice.get("delta")
            if isinstance(delta, dict):
                self._delta(delta, deltas)
            word = choice.get("finish_reason")
            if word and isinstance(word, str):
                # Hosts repeat it in the chunk with the usage.
                self._finish_word = self._finish_word or word
                self._close(deltas)
            if "content_filter_results" in choice:
                self._findings.of_answer(choice)
            if "usage" in choice:
                self._take_usage(choice)  # Moonshot puts it here.

    def _delta(self, delta: Json, deltas: list[v1.StreamDelta]) -> None:
        plain = _PLAIN_FIELDS.issuperset(delta)
        if not plain and not _REASONING_FIELDS.isdisjoint(delta):
            self._reasoning(delta, deltas)
        content = delta.get("content")
        if isinstance(content, str):
            self._piece("text", content, deltas)
        elif content:
            for kind, text in content_pieces(content):
                self._piece(kind, text, deltas)
        if not plain:
            self._beside_content(delta, deltas)

    def _beside_content(self, delta: Json, deltas: list[v1.StreamDelta]) -> None:
        if delta.get("refusal"):
            self._refused = True
            self._piece("refusal", text_of(delta["refusal"]), deltas)
        if "annotations" in delta:
            note_annotations(delta, self._singles.get("text", 0), self._references)
            deltas += self._references.take()
        if "images" in delta or "audio" in delta:
            self._media(delta, deltas)
        if "tool_calls" in delta or "function_call" in delta:
            self._call_fragments(delta, deltas)
        if "provider_metadata" in delta:
            self._true_total = true_total_tokens(delta) or self._true_total

    def _reasoning(self, delta: Json, deltas: list[v1.StreamDelta]) -> None:
        entries = detail_entries(delta)
        for entry in entries:
            self._detail_entry(entry, deltas)
        if not tells_text(entries):
            self._piece("reasoning", reasoning_text(delta), deltas)

    def _piece(self, kind: str, text: str, deltas: list[v1.StreamDelta]) -> None:
        if not text:
            return
        index = self._singles.get(kind)
        if index is None:
            index = self._singles[kind] = self._new_part()
        if kind == "reasoning":
            deltas.append(v1.StreamDelta(part_index=index, reasoning=text))
        else:
            deltas.append(v1.StreamDelta(part_index=index, text=text))

    def _detail_entry(self, entry: Json, deltas: list[v1.StreamDelta]) -> None:
        if self._detail is not None and self._detail.continues(entry):
            text = self._detail.add(entry)
        else:
            self._close_detail(deltas)
            self._detail = ReasoningDetail(entry)
            text = self._detail.text
        if self._detail.encrypted:
            self._close_detail(deltas)  # Comes whole; nothing is to be waited for.
        elif text:
            if self._detail_part is None:
                self._detail_part = self._new_part()
            deltas.append(v1.StreamDelta(part_index=self._detail_part, reasoning=text))

    def _close_detail(self, deltas: list[v1.StreamDelta]) -> None:
        detail, self._detail = self._detail, None
        index, self._detail_part = self._detail_part, None
        if detail is None or detail.empty:
            return
        if index is None:
            deltas.append(v1.StreamDelta(part_index=self._new_part(), part=detail.part()))
            return
        signature = detail.signature()
        if signature is not None:
            deltas.append(v1.StreamDelta(part_index=index, signature=signature))

    def _media(self, delta: Json, deltas: list[v1.StreamDelta]) -> None:
        deltas.extend(
            v1.StreamDelta(part_index=self._new_part(), part=part) for part in image_parts(delta)
        )
        audio = delta.get("audio")
        if not isinstance(audio, dict):
            return
        if self._audio is None:
            self._audio = (self._new_part(), bytearray())
        self._audio[1].extend(decode_base64(text_of(audio.get("data"))))
        self._audio_id = self._audio_id or text_of(audio.get("id"))
        self._transcript += text_of(audio.get("transcript"))

    def _call_fragments(self, delta: Json, deltas: list[v1.StreamDelta]) -> None:
        calls = delta.get("tool_calls")
        if isinstance(calls, dict):
            calls = [calls]  # TGI's streams, up to its second version.
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict):
                self._call_fragment(call, deltas)
        legacy = delta.get("function_call")
        if isinstance(legacy, dict):
            self._call_fragment({"index": 0, "function": legacy}, deltas)

    def _call_fragment(self, fragment: Json, deltas: list[v1.StreamDelta]) -> None:
        call_id, name, arguments = call_fields(fragment)
        call = self._find_call(fragment.get("index"), call_id, name)
        self._last_call = call
        call.id = call.id or call_id
        if "extra_content" in fragment:
            call.signature = call_signature(fragment) or call.signature
        if call.announced:
            # Hosts repeat id and name in every fragment; only the arguments are new.
            if arguments:
                deltas.append(_call_delta(call, v1.ToolCallDelta(arguments_json=arguments)))
            return
        call.name = call.name or name
        call.pending += arguments
        if call.name:
            self._announce(call, deltas)

    def _find_call(self, index: Any, call_id: str, name: str) -> _Call:
        """The call that a fragment belongs to: by index, else by id, else the last one."""
        key = index if isinstance(index, int) else call_id
        if key != "":
            call = self._call_by_key.get(key)
            # Some hosts give every parallel call the same index, but never the same id.
            if call is not None and not (name and call_id and call.id and call_id != call.id):
                return call
        elif self._last_call is not None and not (name and self._last_call.name):
            return self._last_call
        call = _Call(self._new_part(), len(self._calls))
        self._calls.append(call)
        if key != "":
            self._call_by_key[key] = call
        return call

    def _announce(self, call: _Call, deltas: list[v1.StreamDelta]) -> None:
        call.announced = True
        call.id = call.id or made_call_id(self.response_id, call.number)
        first = v1.ToolCallDelta(id=call.id, name=call.name, arguments_json=call.pending)
        deltas.append(_call_delta(call, first))

    def _close(self, deltas: list[v1.StreamDelta]) -> None:
        """Hands out what was held back."""
        self._close_detail(deltas)
        for call in self._calls:
            if not call.announced:
                self._announce(call, deltas)
            if call.signature is not None:
                deltas.append(v1.StreamDelta(part_index=call.part_index, signature=call.signature))
                call.signature = None
        if self._audio is not None:
            index, data = self._audio
            self._audio = None
            part = audio_part(self._audio_id, bytes(data), self._transcript)
            deltas.append(v1.StreamDelta(part_index=index, part=part))

    def _take_usage(self, holder: Json) -> None:
        usage = holder.get("usage")
        if usage is None and "x_groq" in holder and isinstance(holder["x_groq"], dict):
            usage = holder["x_groq"].get("usage")
        if isinstance(usage, dict) and usage:
            # A later report replaces an earlier one: Perplexity counts as it goes.
            self._raw_usage = usage
        elif self._raw_usage is None or not self._true_total:
            return
        read_usage(self._raw_usage, self.usage, self._true_total)

    def _new_part(self) -> int:
        index = self._part_count
        self._part_count += 1
        return index


def _call_delta(call: _Call, delta: v1.ToolCallDelta) -> v1.StreamDelta:
    return v1.StreamDelta(part_index=call.part_index, tool_call=delta)


def _raise_reported(event: str, chunk: Json) -> None:
    error = reported_error(chunk)
    if error is None and event == "error":
        error = reported_error({"error": chunk})
    if error is None and isinstance(chunk.get("x_groq"), dict):
        error = reported_error(chunk["x_groq"])
    if error is not None:
        raise error
