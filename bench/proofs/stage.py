"""Sets up what proofs run on."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.postgres_server import postgres_programs
from tests.support.redis_server import redis_program

from bench.common import tools
from bench.common.child import BenchError
from bench.proofs.base import Options, Stage
from bench.subjects import upstream


@contextmanager
def set_up(options: Options) -> Iterator[Stage]:
    """A stage, while it stands. Raises BenchError where a program is missing."""
    redis, postgres = redis_program(), postgres_programs()
    if redis is None or postgres is None:
        missing = "redis-server" if redis is None else "PostgreSQL's postgres and initdb"
        raise BenchError(f"{missing} was not found")
    program, _ = tools.build()
    with (
        tempfile.TemporaryDirectory(prefix="trunkline-proofs-") as scratch,
        upstream(program, None) as running,
    ):
        folder = Path(scratch)
        yield Stage(options, running, folder, redis, postgres)
