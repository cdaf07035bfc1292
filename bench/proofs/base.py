"""What a proof is, what it runs on, and what it gives."""

import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.common.child import BenchError, Running
from bench.scenarios.base import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How thoroughly to prove. `rounds` None: as many as the proof has by itself."""

    rounds: int | None = None
    seed: int = 1
    # Scales how long loads last.
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Stage:
    """What proofs run on: a provider that serves, a folder to write in, where the servers are.

    Proofs start what else they need from `tests/support`, on the main thread.
    """

    options: Options
    upstream: Running
    scratch: Path
    redis_program: Path
    postgres_programs: Path

    def rng(self, *parts: object) -> random.Random:
        """Randomness that the seed and `parts` decide."""
        return random.Random(":".join(map(str, (self.options.seed, *parts))))  # noqa: S311

    def folder(self, name: str) -> Path:
        """A new folder for one part of a proof."""
        path = self.scratch / name
        path.mkdir(parents=True)
        return path


@dataclass(frozen=True, slots=True)
class Result:
    """What a proof found. `broken` are the promises that did not hold, in words."""

    tables: Sequence[Table]
    figures: Mapping[str, Any]
    broken: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Proof:
    """One named proof: what it shows, and how."""

    name: str
    title: str
    promise: str
    run: Callable[[Stage], Coroutine[Any, Any, Result]]


__all__ = ["BenchError", "Options", "Proof", "Result", "Stage", "Table"]
