"""multipart/form-data (RFC 7578), for vendors that take files so."""

from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

# A quote, a backslash or a line break would end a name early: browsers escape them so.
_ESCAPES = str.maketrans({'"': "%22", "\\": "%5C", "\r": "%0D", "\n": "%0A"})


class Part(NamedTuple):
    """One field of a form; a file where `filename` is not empty."""

    name: str
    content: bytes
    filename: str = ""
    media_type: str = ""


def form(parts: Iterable[Part]) -> tuple[bytes, str]:
    """The body of a form, and its content type.

    The boundary is a digest of the content, so that the same form makes the same bytes: a
    retry sends what was sent before.
    """
    parts = list(parts)
    digest = sha256()
    for part in parts:
        digest.update(part.name.encode())
        digest.update(part.content)
    boundary = digest.hexdigest()[:40]
    # No content can be made to hold its own digest; it may still hold one by chance.
    while any(boundary.encode() in part.content for part in parts):
        digest.update(b"-")
        boundary = digest.hexdigest()[:40]
    pieces: list[bytes] = []
    for part in parts:
        head = f'--{boundary}\r\ncontent-disposition: form-data; name="{_escaped(part.name)}"'
        if part.filename:
            head += f'; filename="{_escaped(part.filename)}"'
        if part.media_type:
            head += f"\r\ncontent-type: {_one_line(part.media_type)}"
        pieces += [head.encode(), b"\r\n\r\n", part.content, b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    return b"".join(pieces), f"multipart/form-data; boundary={boundary}"


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)


def _one_line(text: str) -> str:
    return "".join(character for character in text if character.isprintable())
