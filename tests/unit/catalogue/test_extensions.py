"""Dialects and rows of packages: what is taken, and what is refused with whose it is."""

import sys
from collections.abc import Mapping
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.plain_dialect import PlainCodec
from trunkline_server.catalogue.extensions import (
    DIALECT_GROUP,
    ROW_GROUP,
    dialects,
    provider_rows,
    read_dialects,
    read_package_rows,
)
from trunkline_server.catalogue.rows import built_in_rows
from trunkline_server.providers import api
from trunkline_server.providers.codec import Codec
from trunkline_server.providers.dialects import DIALECTS
from trunkline_server.settings import ConfigError


class Good(PlainCodec):
    api_version = 1


class Other(Good):
    dialect = "other"


class Old(PlainCodec):
    api_version = 0


class Silent(PlainCodec):
    pass


class Half:
    dialect = "plain"
    api_version = 1

    def encode_generate(self) -> None:
        pass


class Angry:
    dialect = "plain"

    def __init__(self) -> None:
        raise ValueError("no licence found")


def make() -> Good:
    return Good()


class Release(Distribution):
    """A distribution that says no more than its name and version."""

    def __init__(self, name: str) -> None:
        self._name = name

    def read_text(self, filename: str) -> str | None:
        return f"Name: {self._name}\nVersion: 1.2\n" if filename == "METADATA" else None

    def locate_file(self, path: object) -> Path:
        return Path(str(path))


MODULE = "trunkline_test_extension"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a package whose rows a test writes; beside it stands a module of codecs."""
    module = ModuleType(MODULE)
    vars(module).update(
        {each.__name__: each for each in (Good, Other, Old, Silent, Half, Angry)},
        instance=Good(),
        made=make,
        number=5,
    )
    monkeypatch.setitem(sys.modules, MODULE, module)
    package = tmp_path / f"{MODULE}_rows"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, package.name, raising=False)
    return package


def point(
    value: str, name: str = "plain", group: str = DIALECT_GROUP, of: str = "acme"
) -> EntryPoint:
    made = EntryPoint(name, f"{MODULE}{value}", group)
    return made._for(Release(f"trunkline-{of}"))  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("value", [":Good", ":instance", ":made"])
def test_a_class_an_instance_and_a_function_give_a_codec(value: str) -> None:
    found = read_dialects([point(value)])
    assert isinstance(found["plain"], Good)
    assert found.keys() - DIALECTS.keys() == {"plain"}


def test_several_packages() -> None:
    found = read_dialects([point(":Other", "other", of="b"), point(":Good", of="a")])
    assert {"plain", "other"} <= found.keys()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ([point(":Old")], "has api_version 0; this router has 1"),
        ([point(":Silent")], "does not say its api_version"),
        ([point(":Half")], "is no codec: it lacks decode_embed, decode_error"),
        ([point(":number")], "cannot be loaded: TypeError"),
        ([point(":absent")], "cannot be loaded: AttributeError"),
        ([point("_absent:Good")], "cannot be loaded: ModuleNotFoundError"),
        ([point(":Angry")], "cannot be loaded: ValueError: no licence found"),
        ([point(":Other")], "calls its dialect 'other'"),
        ([point(":Good", "openai")], "there is one of that name already, of the router"),
        (
            [point(":Good", of="b"), point(":Good", of="a")],
            "there is one of that name already, of trunkline-a 1.2",
        ),
    ],
)
def test_what_is_refused_names_the_distribution(wrong: list[EntryPoint], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_dialects(wrong)
    text = str(caught.value)
    assert text.startswith("trunkline-")
    assert " 1.2: trunkline.dialects " in text
    assert told in text


ROW = "acme: {dialect: openai, base_url: 'https://acme.example/v1'}\n"


def rows(folder: Path, text: str | None, value: str = "_rows") -> Mapping[str, object]:
    if text is not None:
        (folder / "providers.yaml").write_text(text)
    return read_package_rows([point(value, "acme", ROW_GROUP)], DIALECTS)


def test_rows_of_a_package(folder: Path) -> None:
    found = rows(folder, ROW)
    assert found.keys() - built_in_rows().keys() == {"acme"}


@pytest.mark.parametrize(
    ("text", "value", "told"),
    [
        (None, "_rows", "its providers.yaml cannot be read"),
        (ROW, ":number", "names no package that holds a providers.yaml"),
        ("openai: {dialect: openai, base_url: 'https://a.b'}\n", "_rows", "is one of the router"),
        ("x: {dialect: klingon, base_url: 'https://a.b'}\n", "_rows", "an unknown dialect"),
        ("x: {dialct: openai, base_url: 'https://a.b'}\n", "_rows", "providers.yaml of trunkline-"),
    ],
)
def test_rows_that_are_refused(folder: Path, text: str | None, value: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rows(folder, text, value)
    assert "trunkline-acme 1.2" in str(caught.value)
    assert told in str(caught.value)


def test_without_packages_there_is_what_the_router_has() -> None:
    assert read_dialects([]) == DIALECTS
    assert read_package_rows([], DIALECTS) == built_in_rows()
    # Found once; tests run where no such package is installed.
    assert dialects() is dialects()
    assert provider_rows() is provider_rows()


def test_the_public_surface() -> None:
    """A name that goes, or a protocol that demands more, breaks packages: it is a new version."""
    assert api.API_VERSION == 1
    assert {name for name in api.__all__ if not hasattr(api, name)} == set()
    codec: Codec = Good()
    assert codec.dialect == "plain"
