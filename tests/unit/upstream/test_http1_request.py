"""Requests as bytes: exactly what is meant, and nothing that a caller's text could add."""

import random

import pytest

from trunkline_server.upstream.http import HttpRequest
from trunkline_server.upstream.http1.request import Origin, RequestEncoder


def request(
    url: str = "http://api.example/v1",
    method: str = "POST",
    headers: tuple[tuple[str, str], ...] = (),
    body: bytes = b"{}",
) -> HttpRequest:
    return HttpRequest(method, url, headers, body)


@pytest.fixture
def encoder() -> RequestEncoder:
    return RequestEncoder("trunkline/1", "identity")


DEFAULTS = b"accept: */*\r\naccept-encoding: identity\r\nuser-agent: trunkline/1\r\n"


def test_a_whole_head(encoder: RequestEncoder) -> None:
    origin, head = encoder.encode(
        request("https://api.example:8443/v1/a%2Fb?x=%20&y=1", headers=(("X-Key", "a b\tc"),))
    )
    assert origin == Origin(tls=True, host="api.example", port=8443)
    assert head == (
        b"POST /v1/a%2Fb?x=%20&y=1 HTTP/1.1\r\nhost: api.example:8443\r\nX-Key: a b\tc\r\n"
        + DEFAULTS
        + b"content-length: 2\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("url", "peer", "host", "target"),
    [
        ("http://a", "a:80", "a", "/"),
        ("http://a:80/", "a:80", "a", "/"),
        ("http://a:8080/x", "a:8080", "a:8080", "/x"),
        ("https://A.Example/x", "a.example:443", "a.example", "/x"),
        ("https://a:443/x", "a:443", "a", "/x"),
        ("https://a:80/x", "a:80", "a:80", "/x"),
        ("http://a?x=/y", "a:80", "a", "/?x=/y"),
        ("http://a/x#part", "a:80", "a", "/x"),
        ("http://a/x?y=a?b:c@d#part", "a:80", "a", "/x?y=a?b:c@d"),
        ("http://[::1]:8080/x", "[::1]:8080", "[::1]:8080", "/x"),
        ("http://127.0.0.1/v1:generate", "127.0.0.1:80", "127.0.0.1", "/v1:generate"),
        ("http://a/p/models/m:countTokens;v=1", "a:80", "a", "/p/models/m:countTokens;v=1"),
    ],
)
def test_urls(encoder: RequestEncoder, url: str, peer: str, host: str, target: str) -> None:
    origin, head = encoder.encode(request(url))
    assert origin.peer == peer
    assert head.startswith(f"POST {target} HTTP/1.1\r\nhost: {host}\r\n".encode())


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/v1",
        "a/v1",
        "ftp://a/v1",
        "HTTP:/a/v1",
        "http:///v1",
        "http://user:pass@a/v1",
        "http://a b/v1",
        "http://a/v 1",
        "http://a/v1\r\nx: y",
        "http://a/v1\n",
        "http://a/v1?x=\r\n",
        "http://a/\x00",
        "http://a/\x7f",
        "http://a/\xe9",
        "http://a:0/",
        "http://a:65536/",
        "http://a:1:2/",
        "http://a:x/",
        "http://[::1/",
        "http://\u2139/",
    ],
)
def test_urls_that_are_refused(encoder: RequestEncoder, url: str) -> None:
    with pytest.raises(ValueError, match="URL") as caught:
        encoder.encode(request(url))
    assert not url or url not in str(caught.value)


@pytest.mark.parametrize("method", ["", "GET ", "GE T", "GET\r\n", "GET\x00", "G\xe9T"])
def test_methods_that_are_refused(encoder: RequestEncoder, method: str) -> None:
    with pytest.raises(ValueError, match="method"):
        encoder.encode(request(method=method))


@pytest.mark.parametrize("name", ["", "x y", "x:", "x\r\ny", "x\n", "\x00", "\xe9", "x(", " x"])
def test_header_names_that_are_refused(encoder: RequestEncoder, name: str) -> None:
    with pytest.raises(ValueError, match="header"):
        encoder.encode(request(headers=((name, "v"),)))


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\n", "\r", "a\x00", "\x1b", "\x7f", "\ud800"])
def test_header_values_that_are_refused(encoder: RequestEncoder, value: str) -> None:
    secret = "secret" + value
    with pytest.raises(ValueError, match="header x-key") as caught:
        encoder.encode(request(headers=(("x-key", secret),)))
    cause: BaseException | None = caught.value
    while cause is not None:
        assert "secret" not in repr(cause)
        cause = cause.__cause__ or cause.__context__


def test_no_value_adds_a_line(encoder: RequestEncoder) -> None:
    rng = random.Random(1)
    alphabet = "ab \t\r\n\x00\x0b\x0c\x1c\x1d\x1e\x85\xa0\u2028\u2029:é"
    sent = 0
    for _ in range(2_000):
        value = "".join(rng.choices(alphabet, k=3))
        try:
            _, head = encoder.encode(request(headers=(("x-key", value),)))
        except ValueError:
            continue
        sent += 1
        assert head.count(b"\n") == head.count(b"\r") == 8
        assert f"x-key: {value}\r\n".encode() in head
    assert sent > 100


@pytest.mark.parametrize("name", ["content-length", "Transfer-Encoding", "CONTENT-LENGTH"])
def test_framing_is_the_clients_own(encoder: RequestEncoder, name: str) -> None:
    with pytest.raises(ValueError, match="header"):
        encoder.encode(request(headers=((name, "2"),)))


def test_what_the_caller_gives_is_not_added(encoder: RequestEncoder) -> None:
    own = (("Host", "b"), ("Accept", "x/y"), ("Accept-Encoding", "br"), ("User-Agent", "me"))
    _, head = encoder.encode(request(headers=own))
    assert head == (
        b"POST /v1 HTTP/1.1\r\nHost: b\r\nAccept: x/y\r\nAccept-Encoding: br\r\n"
        b"User-Agent: me\r\ncontent-length: 2\r\n\r\n"
    )


def test_beyond_ascii_is_utf_8(encoder: RequestEncoder) -> None:
    assert "x-name: é\r\n".encode() in encoder.encode(request(headers=(("x-name", "é"),)))[1]


@pytest.mark.parametrize(
    ("method", "body", "line"),
    [
        ("POST", b"", b"content-length: 0\r\n"),
        ("PUT", b"", b"content-length: 0\r\n"),
        ("GET", b"", b""),
        ("DELETE", b"", b""),
        ("GET", b"abc", b"content-length: 3\r\n"),
    ],
)
def test_length(encoder: RequestEncoder, method: str, body: bytes, line: bytes) -> None:
    _, head = encoder.encode(request(method=method, body=body))
    assert head.endswith(DEFAULTS + line + b"\r\n")


def test_what_is_remembered_is_told_apart(encoder: RequestEncoder) -> None:
    """Thousands of requests through one encoder give what a new encoder gives."""
    rng = random.Random(2)
    for _ in range(3_000):
        asked = request(
            f"http://{rng.choice('ab')}:{rng.randint(1, 9)}/{rng.randint(0, 300)}",
            rng.choice(("GET", "POST")),
            (("x-key", str(rng.randint(0, 2_000))),),
            bytes(rng.randint(0, 3)),
        )
        assert encoder.encode(asked) == RequestEncoder("trunkline/1", "identity").encode(asked)


def test_memory_is_bounded_and_shows_no_secret(encoder: RequestEncoder) -> None:
    for number in range(5_000):
        headers = ((f"x-{number}", f"secret-{number}"),)
        encoder.encode(request(f"http://a/{number}", headers=headers))
    memories = [memory for memory in vars(encoder).values() if isinstance(memory, dict)]
    assert len(memories) == 2
    assert max(map(len, memories)) <= 512
    assert "secret" not in repr(memories)
    assert "secret" not in repr(encoder)


def test_the_clients_own_name_adds_no_line() -> None:
    with pytest.raises(ValueError, match="user-agent"):
        RequestEncoder("me\r\nx: y", "identity")
