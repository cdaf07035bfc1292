"""Shell patterns over names, compiled once however many records write them."""

import re
from collections.abc import Callable
from fnmatch import translate
from functools import lru_cache

Match = Callable[[str], re.Match[str] | None]


@lru_cache(maxsize=4096)
def any_of(patterns: tuple[str, ...]) -> Match:
    """Matches whole names that fit one of some shell patterns; case counts. None fit none."""
    return re.compile("|".join(map(translate, patterns)) or "(?!)").match
