"""What became of one recording: what each dialect's test tells the table over all providers."""

from dataclasses import dataclass
from typing import Literal

# An answer was read without loss, or with; or it is one of the dialect's listed exceptions. A
# failure was mapped to the reason that a reading by hand gave it, or was not.
Result = Literal["lossless", "lost", "listed", "mapped", "unmapped"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`origin` is the exchange's, or a fixture's name in its archive; a number behind # in such
    a name tells the answers of one file apart. `note` is why an exception is one."""

    origin: str
    result: Result
    streamed: bool = False
    note: str = ""
