"""The comments of the contract, which the generated stubs leave out."""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources


@cache
def comments() -> Mapping[str, str]:
    """Comments by full name, for every service, method, message, field, enum and value of the
    contract's own packages. `make generate` writes them."""
    text = (resources.files(__package__) / "comments.json").read_text("utf-8")
    found: dict[str, str] = json.loads(text)
    return found


def comment(name: str) -> str:
    """One comment, its lines joined where they only wrap; empty where there is none."""
    return unwrapped(comments().get(name, ""))


def unwrapped(text: str) -> str:
    """Text whose paragraphs are one line each."""
    return "\n\n".join(
        " ".join(line.strip() for line in paragraph.splitlines())
        for paragraph in text.split("\n\n")
    )
