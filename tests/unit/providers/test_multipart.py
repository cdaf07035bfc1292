"""Forms with files, read back by the standard library."""

from email.parser import BytesParser
from email.policy import HTTP

import pytest

from trunkline_server.providers.multipart import Part, form

PARTS = [
    Part("model", b"whisper-1"),
    Part("prompt", 'Zürich, "quoted"\r\n--'.encode()),
    Part("file", bytes(range(256)) * 4, "audio.wav", "audio/wav"),
]


def read(body: bytes, content_type: str) -> list[tuple[str, str | None, str, bytes]]:
    head = f"content-type: {content_type}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + body)
    return [
        (
            str(part.get_param("name", header="content-disposition")),
            part.get_filename(),
            part.get_content_type(),
            bytes(part.get_content() if part.get_filename() else part.get_payload(decode=True)),
        )
        for part in message.iter_parts()
    ]


def test_a_form_is_read_as_it_was_written() -> None:
    body, content_type = form(PARTS)
    assert read(body, content_type) == [
        (part.name, part.filename or None, part.media_type or "text/plain", part.content)
        for part in PARTS
    ]


def test_the_same_form_makes_the_same_bytes() -> None:
    assert form(PARTS) == form(list(PARTS))
    assert form(PARTS)[1] != form(PARTS[:2])[1]


def test_a_boundary_is_in_no_content(monkeypatch: pytest.MonkeyPatch) -> None:
    # A digest that comes out as the content says, until it is asked again.
    class Digest:
        asked = 0

        def update(self, data: bytes) -> None:
            self.asked += data == b"-"

        def hexdigest(self) -> str:
            return str(self.asked) * 64

    monkeypatch.setattr("trunkline_server.providers.multipart.sha256", Digest)
    body, content_type = form([Part("a", b"0" * 40), Part("b", b"1" * 41)])
    assert content_type.endswith("2" * 40)
    assert [part[3] for part in read(body, content_type)] == [b"0" * 40, b"1" * 41]


def test_names_and_types_cannot_break_out() -> None:
    body, content_type = form([Part('a"\r\nx: y', b"1", 'f"\\\r\n', "audio/wav\r\n;x: y")])
    ((name, filename, media_type, content),) = read(body, content_type)
    assert (name, filename) == ("a%22%0D%0Ax: y", "f%22%5C%0D%0A")
    assert (media_type, content) == ("audio/wav", b"1")
    assert body.count(b"\r\n") == 6
