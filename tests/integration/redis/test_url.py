"""Redis URLs: their shapes, and that wrong ones are named without their password."""

import pytest

from trunkline_server.store.redis import RedisClient
from trunkline_server.store.redis_url import RedisAddress, TlsFiles, Topology, parse_redis_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", RedisAddress(Topology.SINGLE, (("h", 6379),))),
        (
            "redis://:p%40ss@h:1/3",
            RedisAddress(Topology.SINGLE, (("h", 1),), database=3, password="p@ss"),
        ),
        (
            "rediss://me:pw@[::1]:7?ca_file=/ca.pem",
            RedisAddress(
                Topology.SINGLE,
                (("::1", 7),),
                username="me",
                password="pw",
                tls=TlsFiles(ca_file="/ca.pem"),
            ),
        ),
        (
            "redis+sentinel://a:1,b/main/2",
            RedisAddress(Topology.SENTINEL, (("a", 1), ("b", 26379)), service="main", database=2),
        ),
        (
            "rediss+cluster://u:hush@a,b:2",
            RedisAddress(
                Topology.CLUSTER,
                (("a", 6379), ("b", 2)),
                username="u",
                password="hush",
                tls=TlsFiles(),
            ),
        ),
    ],
)
def test_shapes(url: str, expected: RedisAddress) -> None:
    parsed = parse_redis_url(url)
    assert parsed == expected
    assert expected.password == "" or expected.password not in repr(parsed) + parsed.display
    assert parse_redis_url(parsed.display).hosts == expected.hosts


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://u:hidden@h", "begins with"),
        ("redis://u:hidden@", "host"),
        ("redis://u:hidden@h:0", "port"),
        ("redis://u:hidden@h:x", "port"),
        ("redis://u:hidden@h/one", "database"),
        ("redis://u:hidden@h/1/2", "database"),
        ("redis://u:hidden@a,b", "host"),
        ("redis://u:hidden@[::1", "parsed"),
        ("redis+sentinel://u:hidden@h", "service"),
        ("redis+cluster://u:hidden@h/1", "database"),
        ("redis://u:hidden@h?ca_file=x", "rediss"),
        ("rediss://u:hidden@h?color=x", "color"),
        ("", "begins with"),
    ],
)
def test_wrong_urls_are_named_without_their_password(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        parse_redis_url(url)
    assert "hidden" not in str(caught.value)


def test_a_missing_tls_file_is_found_at_once() -> None:
    with pytest.raises(OSError, match="No such file"):
        RedisClient("rediss://h?ca_file=/does/not/exist")
