"""The bounded memo."""

from trunkline_server.routing.lru import Lru


def test_the_least_recently_used_goes_first() -> None:
    memo: Lru[str, int] = Lru(3)
    for name in "abc":
        memo.put(name, ord(name))
    assert memo.get("a") == ord("a")
    memo.put("d", 1)
    assert memo.get("b") is None
    assert [memo.get(name) for name in "acd"] == [ord("a"), ord("c"), 1]


def test_sizes_count_and_are_given_back() -> None:
    memo: Lru[str, int] = Lru(10)
    memo.put("a", 1, size=6)
    memo.put("a", 2, size=4)
    memo.put("b", 3, size=6)
    assert (memo.get("a"), memo.get("b")) == (2, 3)
    memo.put("c", 4, size=7)
    assert (memo.get("a"), memo.get("b"), memo.get("c")) == (None, None, 4)
    memo.put("d", 5, size=3)
    assert (memo.get("c"), memo.get("d")) == (4, 5)


def test_the_newest_is_kept_even_when_it_is_too_large() -> None:
    memo: Lru[str, int] = Lru(2)
    memo.put("a", 1)
    memo.put("b", 2, size=9)
    assert (memo.get("a"), memo.get("b"), len(memo)) == (None, 2, 1)
    memo.put("c", 3)
    assert (memo.get("b"), memo.get("c")) == (None, 3)
