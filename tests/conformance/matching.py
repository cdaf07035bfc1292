"""What a case expects of an answer: a part of it, with a few operators for what varies.

Maps are matched key by key and may hold more than is expected; lists element by element. A map
with one key of these is an operator: `$contains` (of texts and lists), `$prefix`, `$gt`, `$le`,
`$len`, and `$absent: true`, which only a missing key fulfils.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_MISSING = object()

_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "$contains": lambda found, wanted: wanted in found,
    "$prefix": lambda found, wanted: str(found).startswith(wanted),
    "$gt": lambda found, wanted: float(found) > wanted,
    "$le": lambda found, wanted: float(found) <= wanted,
    "$len": lambda found, wanted: len(found) == wanted,
}


def differences(found: Any, wanted: Any, place: str = "the answer") -> list[str]:
    """Where the answer is not as expected, in words; empty if it is."""
    if isinstance(wanted, Mapping) and "$absent" in wanted:
        return [] if found is _MISSING else [f"{place} is {_shown(found)}, not absent"]
    if found is _MISSING:
        return [f"{place} is missing"]
    if isinstance(wanted, Mapping):
        if operators := _OPERATORS.keys() & wanted.keys():
            wrong = [name for name in operators if not _OPERATORS[name](found, wanted[name])]
            return [f"{place} is {_shown(found)}, not {name} {wanted[name]!r}" for name in wrong]
        if not isinstance(found, Mapping):
            return [f"{place} is {_shown(found)}, not a map"]
        pairs = [(found.get(key, _MISSING), wanted[key], f"{place}.{key}") for key in wanted]
    elif isinstance(wanted, Sequence) and not isinstance(wanted, str):
        if not isinstance(found, Sequence) or len(found) != len(wanted):
            return [f"{place} is {_shown(found)}, not {len(wanted)} elements"]
        pairs = [(found[at], wanted[at], f"{place}[{at}]") for at in range(len(wanted))]
    else:
        return [] if found == wanted else [f"{place} is {_shown(found)}, not {wanted!r}"]
    return [line for pair in pairs for line in differences(*pair)]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else text[:300] + "…"
