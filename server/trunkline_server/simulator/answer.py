"""What a simulated model answers, before a dialect writes it down.

Answers are deterministic: the same prompt gives the same text, calls and counts.
"""

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from trunkline_server.simulator import tokens
from trunkline_server.simulator.prompt_cache import CacheUse, Unit
from trunkline_server.simulator.sample import sample, sample_object

ECHO_CHARACTERS = 200
_RESULT_CHARACTERS = 100
_WORD = re.compile(r"[\w.:-]+")


@dataclass(slots=True)
class Media:
    """A picture, recording or document of the prompt; `size` in bytes, None when referred to."""

    kind: str
    media_type: str
    size: int | None

    def __str__(self) -> str:
        size = "by reference" if self.size is None else f"{self.size} bytes"
        return f"{self.media_type or 'unknown type'}, {size}"


@dataclass(slots=True)
class Prompt:
    """What the answer depends on, as a dialect read it from a request that it found valid.

    `results` are the tool results that the prompt ends with, as name and text. `tool_mode` is
    "auto", "none" or "required"; `tool_names` not empty narrows what may be called.
    """

    model: str
    message_count: int = 0
    last_user_text: str = ""
    units: list[Unit] = field(default_factory=list)
    media: list[Media] = field(default_factory=list)
    results: list[tuple[str, str]] = field(default_factory=list)
    tools: dict[str, Mapping[str, Any] | None] = field(default_factory=dict)
    tool_mode: str = "auto"
    tool_names: tuple[str, ...] = ()
    parallel: bool = True
    schema: dict[str, Any] | None = None
    json_object: bool = False
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    think: bool = False

    def add(self, content: Hashable, text_tokens: int, mark: str = "") -> None:
        """Adds a piece of the prompt to what is counted and cached."""
        self.units.append(Unit(content, text_tokens, mark))

    @property
    def input_tokens(self) -> int:
        return sum(unit.tokens for unit in self.units)


@dataclass(slots=True)
class ToolCall:
    """A call of a tool; `arguments_json` is what a model would have written."""

    name: str
    arguments: dict[str, Any]
    arguments_json: str

    @property
    def tokens(self) -> int:
        return tokens.count(self.name) + tokens.count(self.arguments_json)


@dataclass(slots=True)
class Answer:
    """A whole answer. `finish` is stop, stop_text, length, tool_calls or filter.

    Token counts are inclusive: output_tokens counts reasoning, input_tokens counts the cached.
    """

    reasoning: str = ""
    text: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    finish: str = "stop"
    stop_text: str | None = None
    input_tokens: int = 0
    cache: CacheUse = field(default_factory=CacheUse)

    @property
    def reasoning_tokens(self) -> int:
        return tokens.count(self.reasoning)

    @property
    def output_tokens(self) -> int:
        called = sum(call.tokens for call in self.calls)
        return self.reasoning_tokens + tokens.count(self.text) + called


def compose(prompt: Prompt, cache: CacheUse, *, length: int = 0, filtered: bool = False) -> Answer:
    """The answer to a prompt. `length` other than 0 is the number of tokens of its text;
    `filtered` has the vendor's filter cut it short."""
    answer = Answer(input_tokens=prompt.input_tokens, cache=cache)
    if prompt.think:
        about = prompt.last_user_text[:60]
        answer.reasoning = f"Simulated reasoning about {len(prompt.units)} pieces: {about}"
    answer.calls = [] if filtered else _calls(prompt)
    if not answer.calls:
        answer.text = _text(prompt)
        if length:
            answer.text = tokens.fill(answer.text, length)
    if filtered:
        answer.text, answer.calls, answer.finish = (
            answer.text[: len(answer.text) // 2],
            [],
            "filter",
        )
        return answer
    _stop(answer, prompt.stop)
    if answer.calls:
        answer.finish = "tool_calls"
    if prompt.max_tokens is not None and answer.output_tokens > prompt.max_tokens:
        _shorten(answer, prompt.max_tokens)
    return answer


def _text(prompt: Prompt) -> str:
    if prompt.schema is not None:
        return orjson.dumps(sample(prompt.schema)).decode()
    if prompt.json_object:
        echo = {"simulated": True, "model": prompt.model, "messages": prompt.message_count}
        return orjson.dumps({**echo, "last_user_text": _echo(prompt.last_user_text)}).decode()
    said = [f"Simulated answer from {prompt.model}."]
    if prompt.results:
        results = "; ".join(f"{name}: {text[:_RESULT_CHARACTERS]}" for name, text in prompt.results)
        said.append(f"Tool results: {results}.")
    for kind in ("image", "audio", "file"):
        seen = [str(item) for item in prompt.media if item.kind == kind]
        if seen:
            said.append(f"Saw {len(seen)} {kind} ({'; '.join(seen)}).")
    said.append(f"Read {prompt.message_count} messages, the last user text being:")
    said.append(_echo(prompt.last_user_text))
    return " ".join(said)


def _echo(text: str) -> str:
    return text if len(text) <= ECHO_CHARACTERS else text[:ECHO_CHARACTERS] + "…"


def _calls(prompt: Prompt) -> list[ToolCall]:
    """The calls that the last user text asks for by "call NAME", or that the caller demands."""
    if not prompt.tools or prompt.tool_mode == "none":
        return []
    allowed = prompt.tool_names or tuple(prompt.tools)
    names = [] if prompt.results else _asked_for(prompt.last_user_text, allowed)
    if not names and prompt.tool_mode == "required":
        names = [allowed[0]]
    if not prompt.parallel:
        names = names[:1]
    calls = []
    for name in names:
        schema = prompt.tools[name]
        arguments = sample_object(dict(schema) if schema else None)
        calls.append(ToolCall(name, arguments, orjson.dumps(arguments).decode()))
    return calls


def _asked_for(text: str, names: Sequence[str]) -> list[str]:
    words = [word.strip(".:") for word in _WORD.findall(text)]
    begin = next((i for i, word in enumerate(words) if word.lower() == "call"), len(words))
    return [word for word in words[begin + 1 :] if word in names]


def _stop(answer: Answer, stops: Sequence[str]) -> None:
    """Ends the text before the stop text that occurs first."""
    found = [(at, stop) for stop in stops if (at := answer.text.find(stop)) >= 0]
    if found:
        at, stop = min(found)
        answer.text, answer.stop_text, answer.finish = answer.text[:at], stop, "stop_text"


def _shorten(answer: Answer, limit: int) -> None:
    """Keeps what fits in the limit: reasoning first, then text, then whole calls."""
    answer.finish, answer.stop_text = "length", None
    answer.reasoning = tokens.cut(answer.reasoning, limit)
    room = limit - answer.reasoning_tokens
    answer.text = tokens.cut(answer.text, room)
    room -= tokens.count(answer.text)
    kept = []
    for call in answer.calls:
        room -= call.tokens
        if room < 0:
            break
        kept.append(call)
    answer.calls = kept
