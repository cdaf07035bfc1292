"""What is wrong with a configuration: all of it, each with its place."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake. `line` counts from 1, 0 means the file as a whole; `path` may be empty."""

    line: int
    path: str
    message: str


class ConfigError(Exception):
    """A configuration that cannot be used, with every problem found in it.

    Its text has one line per problem: `trunkline.yaml:12: providers.openai.api_key: ...`. No
    line quotes a secret. `files` are the files besides that it refers to, as far as it could
    be read.
    """

    def __init__(
        self, name: str, problems: Iterable[Problem], files: tuple[Path, ...] = ()
    ) -> None:
        self.name = name
        self.files = files
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(self._lines()))

    def _lines(self) -> Iterable[str]:
        for problem in self.problems:
            place = f"{self.name}:{problem.line}" if problem.line else self.name
            where = f" {problem.path}:" if problem.path else ""
            yield f"{place}:{where} {problem.message}"


class InvalidValueError(Exception):
    """A value that cannot be read; the message says why and what to write instead."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """A hint at the known names nearest to an unknown one, or the empty text."""
    near = difflib.get_close_matches(name, list(known), n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""
