"""Counts that do not depend on the clock: function calls, bytecode instructions, system calls."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Count = Callable[[], int]


@contextmanager
def function_calls() -> Iterator[Count]:
    """Counts calls of functions, Python's and C's, that this thread makes in the block."""
    count = 0

    def note(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        if event in {"call", "c_call"}:
            count += 1

    sys.setprofile(note)
    try:
        yield lambda: count
    finally:
        sys.setprofile(None)


@contextmanager
def instructions() -> Iterator[Count]:
    """Counts the bytecode instructions that this thread executes in the block."""
    count = 0

    def within(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        if event == "opcode":
            count += 1
        return within

    def entered(frame: FrameType, _event: str, _argument: object) -> Any:
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return within

    sys.settrace(entered)
    try:
        yield lambda: count
    finally:
        sys.settrace(None)


# What moves bytes. Waiting (futex, epoll) depends on the clock and is left out.
_MOVING = frozenset(
    ("read", "write", "readv", "writev", "sendto", "recvfrom", "sendmsg", "recvmsg", "close")
)
_ROW = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", re.MULTILINE)


def moving_system_calls(summary: str) -> int:
    """The system calls that move bytes, of the table that `strace -c` writes."""
    return sum(int(calls) for calls, name in _ROW.findall(summary) if name in _MOVING)
