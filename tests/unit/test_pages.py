"""Tokens of pages: whole, bound to their question, and safe in a URL."""

import pytest

from trunkline import v1
from trunkline_server.errors import TrunklineError
from trunkline_server.pages import read_token, write_token

QUESTION = ("keys", "", None)


@pytest.mark.parametrize(
    "last", ["a", "", "tenants/acme/keys/é\U0001f600", "x" * 300, 17, [1_800_000_000_000_000, "id"]]
)
def test_a_token_comes_back(last: object) -> None:
    token = write_token(last, *QUESTION)
    assert read_token(token, *QUESTION) == last
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_no_token_is_the_beginning() -> None:
    assert read_token("", *QUESTION) is None


def test_any_other_text_is_refused() -> None:
    token = write_token("name", *QUESTION)
    changed = [token[:at] + "A" + token[at + 1 :] for at in range(len(token)) if token[at] != "A"]
    cut = [token[:length] for length in range(1, len(token))]
    for wrong in (*changed[:-1], *cut, token + "A", token + "=", "+/+/", "\x00", "é"):
        with pytest.raises(TrunklineError) as caught:
            read_token(wrong, *QUESTION)
        assert caught.value.reason == v1.ERROR_REASON_INVALID_REQUEST
        assert [each.field for each in caught.value.violations] == ["page_token"]


@pytest.mark.parametrize("question", [("keys", "", ""), ("key", "s", None), ("keys", "a", None)])
def test_a_token_is_for_its_question(question: tuple[object, ...]) -> None:
    with pytest.raises(TrunklineError):
        read_token(write_token("name", *QUESTION), *question)
