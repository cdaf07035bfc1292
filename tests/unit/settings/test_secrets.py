"""Secrets and their references."""

import pickle
from pathlib import Path

import pytest

from trunkline_server.settings import InvalidValueError, Secret, resolve_secret, usual_key


def test_a_secret_shows_its_reference_only() -> None:
    secret = Secret("sk-value", "env:KEY")
    assert [repr(secret), str(secret), f"{secret}"] == ["Secret(env:KEY)"] * 3
    assert secret.reveal() == "sk-value"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_secrets_compare_by_value() -> None:
    assert Secret("a", "env:A") == Secret("a", "env:A")
    assert hash(Secret("a", "env:A")) == hash(Secret("a", "env:A"))
    assert Secret("a", "env:A") != Secret("b", "env:A")
    assert Secret("a", "env:A") != "a"


def test_references(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("  sk-file\n")
    assert resolve_secret("env:KEY", {"KEY": "sk-env"}, tmp_path).reveal() == "sk-env"
    assert resolve_secret("file:key", {}, tmp_path).reveal() == "sk-file"
    absolute = f"file:{tmp_path / 'key'}"
    assert resolve_secret(absolute, {}, Path("/elsewhere")).reveal() == "sk-file"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"one\ntwo", "holds characters that no header may hold"),
        (b"caf\xc3\xa9", "holds characters that no header may hold"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"x" * 70_000, "is larger than 64 KiB"),
    ],
)
def test_unusable_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(InvalidValueError) as caught:
        resolve_secret("file:key", {}, tmp_path)
    assert str(caught.value).endswith(message)
    assert "one" not in str(caught.value).replace("none", "")


@pytest.mark.parametrize("reference", ["sk-plain", "env:", "env:9NAME", "env:A B", "file:", ""])
def test_what_is_no_reference(reference: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="is not a reference to a secret"):
        resolve_secret(reference, {}, tmp_path)


def test_the_first_usual_variable_that_is_set_counts() -> None:
    env = {"FIRST": " ", "SECOND": "b", "THIRD": "c"}
    assert usual_key(["NONE", "FIRST", "SECOND", "THIRD"], env) == "env:SECOND"
    assert usual_key(["NONE", "FIRST"], env) is None
