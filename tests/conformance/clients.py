"""The clients under test, as clients.yaml lists them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
_LIST = Path(__file__).with_name("clients.yaml")


@dataclass(frozen=True)
class Client:
    """A client: its folder, the programs that it needs, and its commands."""

    name: str
    folder: Path
    needs: tuple[str, ...]
    build: tuple[tuple[str, ...], ...]
    test: tuple[tuple[str, ...], ...]
    drive: tuple[str, ...]
    example: tuple[str, ...]

    def missing(self) -> list[str]:
        """The programs that are not on PATH."""
        return [name for name in self.needs if shutil.which(name) is None]

    @property
    def must_be_there(self) -> bool:
        """Whether a missing program is a failure: in CI, where nothing may be skipped."""
        return os.environ.get("CI") == "true"

    def prepare(self, *, test: bool) -> bool:
        """Builds the driver, and with `test` runs the client's own tests; tells on standard
        output what it runs. False when a command fails."""
        for command in (*self.build, *(self.test if test else ())):
            print(f"{self.name}: {' '.join(command)}", flush=True)
            if subprocess.run(command, cwd=self.folder, check=False).returncode:
                return False
        return True


def clients(names: Sequence[str] = ()) -> list[Client]:
    """The named clients, or all. Raises SystemExit for a name that is not listed."""
    rows = yaml.safe_load(_LIST.read_text("utf-8"))
    if unknown := set(names) - set(rows):
        sys.exit(
            f"error: no such client: {', '.join(sorted(unknown))}; there are {', '.join(rows)}"
        )
    return [_client(name, row) for name, row in rows.items() if not names or name in names]


def _client(name: str, row: dict[str, object]) -> Client:
    unknown = set(row) - {"folder", "needs", "build", "test", "drive", "example"}
    assert not unknown, f"{_LIST.name}: {name}: {unknown}"
    return Client(
        name=name,
        folder=ROOT / "clients" / str(row["folder"]),
        needs=tuple(_words(row.get("needs", []))),
        build=tuple(tuple(_words(command)) for command in _list(row.get("build", []))),
        test=tuple(tuple(_words(command)) for command in _list(row.get("test", []))),
        drive=tuple(_words(row["drive"])),
        example=tuple(_words(row.get("example", []))),
    )


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


def _words(value: object) -> list[str]:
    return [str(word).replace("${python}", sys.executable) for word in _list(value)]
