"""A stage for the proofs of `bench/proofs`, in their small versions."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.proofs.base import Options, Stage
from bench.proofs.stage import set_up

from tests.support.servers import missing


@pytest.fixture
def stage(redis_home: Path, postgres_home: Path) -> Iterator[Stage]:
    """What a proof runs on."""
    if shutil.which("go") is None:
        missing("Go, which builds the bench's upstream,")
    with set_up(Options(rounds=5)) as made:
        yield made
