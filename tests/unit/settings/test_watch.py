"""Reloads, driven by an own sleep: no test waits."""

import asyncio
import os
from pathlib import Path

import pytest

from trunkline_server.settings import ConfigError, Known, ProviderKind, Settings, load
from trunkline_server.settings.watch import ConfigWatcher

KNOWN = Known(kinds={"openai": ProviderKind("openai", "https://api.openai.com/v1")})
FIRST = "providers: {openai: {region: one}}\n"
SECOND = "providers: {openai: {region: two}}\n"
BROKEN = "providers: {openai: {regoin: two}}\n"


class Harness:
    """A watcher over a file, and what it called back with."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.changes: list[Settings] = []
        self.refusals: list[ConfigError] = []
        self.naps: list[float] = []
        self.woken = asyncio.Event()
        self.asleep = asyncio.Event()
        self.watcher = ConfigWatcher(
            path,
            self.changes.append,
            self.refusals.append,
            known=KNOWN,
            env={},
            interval=2.5,
            sleep=self.sleep,
        )

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.asleep.set()
        await self.woken.wait()
        self.woken.clear()

    @property
    def regions(self) -> list[str]:
        return [settings.providers["openai"].region for settings in self.changes]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "trunkline.yaml"
    file.write_text(FIRST)
    return file


def replace(path: Path, text: str) -> None:
    """Writes a file as editors and orchestrators do: aside, then over the old one."""
    aside = path.with_suffix(".new")
    aside.write_text(text)
    aside.replace(path)


def test_nothing_is_called_without_a_change(path: Path) -> None:
    harness = Harness(path)
    harness.watcher.poll()
    os.utime(path, ns=(1, 1))
    harness.watcher.poll()
    replace(path, FIRST)
    harness.watcher.poll()
    assert (harness.changes, harness.refusals) == ([], [])


def test_a_change_is_handed_over_once(path: Path) -> None:
    harness = Harness(path)
    replace(path, SECOND)
    harness.watcher.poll()
    harness.watcher.poll()
    assert harness.regions == ["two"]
    assert harness.changes[0] == load(path, {}, KNOWN)


def test_a_change_in_place_is_seen_by_its_time(path: Path) -> None:
    harness = Harness(path)
    path.write_text(SECOND)  # Of the same length as the first.
    os.utime(path, ns=(2, 2))
    harness.watcher.poll()
    assert harness.regions == ["two"]


def test_a_wrong_file_is_refused_once_and_watched_further(path: Path) -> None:
    harness = Harness(path)
    replace(path, BROKEN)
    harness.watcher.poll()
    harness.watcher.poll()
    assert harness.changes == []
    (refusal,) = harness.refusals
    assert f"{path}:1: providers.openai.regoin: is not known here" in str(refusal)
    replace(path, SECOND)
    harness.watcher.poll()
    assert harness.regions == ["two"]
    assert len(harness.refusals) == 1


def test_a_missing_file_is_refused_until_it_is_back(path: Path) -> None:
    harness = Harness(path)
    path.unlink()
    harness.watcher.poll()
    assert str(harness.refusals[0]) == f"{path}: cannot be read: No such file or directory"
    path.write_text(SECOND)
    harness.watcher.poll()
    assert harness.regions == ["two"]


def test_a_secret_s_file_is_watched(path: Path, tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("sk-one")
    path.write_text("providers: {openai: {api_key: file:key}}\n")
    harness = Harness(path)
    replace(secret, "sk-two")
    harness.watcher.poll()
    (settings,) = harness.changes
    key = settings.providers["openai"].api_key
    assert key is not None
    assert key.reveal() == "sk-two"
    secret.unlink()
    harness.watcher.poll()
    assert "cannot be read" in str(harness.refusals[0])
    assert "sk-" not in str(harness.refusals[0])
    secret.write_text("sk-three")
    harness.watcher.poll()
    key = harness.changes[-1].providers["openai"].api_key
    assert key is not None
    assert key.reveal() == "sk-three"


def test_the_files_watched_are_those_of_the_newest_configuration(
    path: Path, tmp_path: Path
) -> None:
    harness = Harness(path)
    secret = tmp_path / "key"
    secret.write_text("sk-one")
    replace(path, "providers: {openai: {api_key: file:key}}\n")
    harness.watcher.poll()
    replace(secret, "sk-two")
    harness.watcher.poll()
    assert len(harness.changes) == 2
    replace(path, FIRST)
    harness.watcher.poll()
    replace(secret, "sk-three")
    harness.watcher.poll()
    assert len(harness.changes) == 3


def test_a_secret_mended_after_a_refusal_is_noticed(path: Path, tmp_path: Path) -> None:
    harness = Harness(path)
    replace(path, "providers: {openai: {api_key: file:key}}\n")
    harness.watcher.poll()
    assert len(harness.refusals) == 1
    (tmp_path / "key").write_text("sk-late")
    harness.watcher.poll()
    assert len(harness.changes) == 1


def test_reload_hands_over_even_without_a_change(path: Path) -> None:
    harness = Harness(path)
    harness.watcher.reload()
    harness.watcher.poll()
    assert harness.regions == ["one"]
    replace(path, BROKEN)
    harness.watcher.reload()
    harness.watcher.reload()
    assert len(harness.refusals) == 2


async def test_run_polls_at_the_interval_until_cancelled(path: Path) -> None:
    harness = Harness(path)
    running = asyncio.create_task(harness.watcher.run())
    await harness.asleep.wait()
    harness.asleep.clear()
    replace(path, SECOND)
    assert harness.regions == []
    harness.woken.set()
    await harness.asleep.wait()
    assert harness.regions == ["two"]
    assert harness.naps == [2.5, 2.5]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
