"""What is wrong with a configuration: all of it, each with its place."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake. `line` counts from 1, 0 means the file as a whole; `path` may be empty.

    Where the mistake is in a resource, `kind` and `name` say in which, and `field` where in it,
    or is empty; `stored` says that the resource is the store's and not the file's.
    """

    line: int
    path: str
    message: str
    kind: str = ""
    name: str = ""
    field: str = ""
    stored: bool = False


class ConfigError(Exception):
    """A configuration that cannot be used, with every problem found in it.

    Its text has one line per problem: `trunkline.yaml:12: providers.openai.api_key: ...`, or
    `the store: providers 'openai': api_key: ...`. No line quotes a secret. `files` are the files
    besides that it refers to, as far as it could be read.
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
            if problem.stored:
                where = f" {problem.field}:" if problem.field else ""
                yield f"the store: {problem.kind} {problem.name!r}:{where} {problem.message}"
                continue
            place = f"{self.name}:{problem.line}" if problem.line else self.name
            where = f" {problem.path}:" if problem.path else ""
            yield f"{place}:{where} {problem.message}"


class InvalidValueError(Exception):
    """A value that cannot be read; the message says why and what to write instead."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """A hint at the known names nearest to an unknown one, or the empty text."""
    near = difflib.get_close_matches(name, list(known), n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""
