"""Function calls that Vertex AI streams in pieces, as `streamFunctionCallArguments` asks for."""

import re
from typing import Any

from trunkline_server.providers.gemini_json import (
    Json,
    as_object,
    list_at,
    object_at,
    senseless,
    text_at,
)

# One step of a JSON path (RFC 9535): .name, ['name'], ["name"] or [3].
_STEP = re.compile(
    r"""\.(?P<name>[^.\[\]]+) | \[(?P<index>\d{1,6})\]
      | \['(?P<single>(?:[^'\\]|\\.)*)'\] | \["(?P<double>(?:[^"\\]|\\.)*)"\]""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(.)")


class PartialCall:
    """A call whose arguments arrive whole in `args`, or leaf by leaf in `partialArgs`."""

    __slots__ = ("arguments", "id", "name", "signature")

    def __init__(self, call_id: str, name: str, signature: str) -> None:
        self.id = call_id
        self.name = name
        self.signature = signature
        self.arguments: Json = {}

    def add(self, call: Json) -> None:
        """Takes one functionCall object. Raises UpstreamError with BAD_PROVIDER_RESPONSE."""
        arguments = object_at(call, "args")
        if arguments:
            self.arguments.update(arguments)
        if "partialArgs" in call:
            for item in list_at(call, "partialArgs"):
                leaf = as_object(item, "partialArgs")
                _set(self.arguments, _steps(text_at(leaf, "jsonPath")), _value(leaf))


def _value(leaf: Json) -> Any:
    for key in ("stringValue", "numberValue", "boolValue"):
        if key in leaf:
            return leaf[key]
    return None


def _steps(path: str) -> list[str | int]:
    steps: list[str | int] = []
    position = 1
    while path[:1] == "$" and position < len(path):
        found = _STEP.match(path, position)
        if found is None:
            break
        position = found.end()
        kind = found.lastgroup
        text = found[kind or 0]
        match kind:
            case "index":
                steps.append(int(text))
            case "name":
                steps.append(text)
            case _:
                steps.append(_ESCAPE.sub(r"\1", text))
    if not steps or position < len(path):
        raise senseless("holds a JSON path that cannot be read")
    return steps


def _set(root: Json, steps: list[str | int], value: Any) -> None:
    """Puts the value at the end of the path, whose missing holders are made on the way. A text
    goes on from the text that is already there."""
    holder: Any = root
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        if isinstance(step, int):
            if not isinstance(holder, list) or step > len(holder):
                raise senseless("holds a JSON path into nothing")
            if step == len(holder):
                holder.append(None)
        elif isinstance(holder, dict):
            holder.setdefault(step, None)
        else:
            raise senseless("holds a JSON path into nothing")
        present = holder[step]
        if following is None:
            joins = isinstance(present, str) and isinstance(value, str)
            holder[step] = present + value if joins else value
        elif present is None:
            holder[step] = [] if isinstance(following, int) else {}
        holder = holder[step]
