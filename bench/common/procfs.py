"""What Linux tells of a process and its descendants: CPU time and resident memory."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")
# A tree at rest spends at most so many ticks in so many seconds, in which all that is done now and
# then has its turn.
_REST_SECONDS, _REST_TICKS = 0.3, 1


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on; None once the process is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The second field is the program's name in brackets, which may contain anything.
    return text.rpartition(")")[2].split()


def tree(pid: int) -> list[int]:
    """The process and all its living descendants."""
    children: dict[int, list[int]] = {}
    for each in _processes():
        fields = _stat(each)
        if fields is not None:
            children.setdefault(int(fields[1]), []).append(each)
    found = [pid]
    for parent in found:
        found.extend(children.get(parent, ()))
    return found


def _processes() -> Iterator[int]:
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            yield int(entry.name)


def cpu_seconds(pid: int) -> float:
    """User and system time of the whole tree, waited-for children included.

    The kernel counts it exactly and shows it in ticks, usually of 10 ms.
    """
    ticks = 0
    for member in tree(pid):
        fields = _stat(member)
        if fields is not None:
            # utime, stime, cutime, cstime: fields 14 to 17, of which the first two are gone.
            ticks += sum(map(int, fields[11:15]))
    return ticks / _TICKS


def await_rest(pid: int, patience: float = 30.0) -> None:
    """Waits until the tree has next to nothing to do: what it still does for calls that it has
    answered, such as sending their events to a database, is part of their cost."""
    until = time.monotonic() + patience
    spent = cpu_seconds(pid)
    while time.monotonic() < until:
        time.sleep(_REST_SECONDS)
        before, spent = spent, cpu_seconds(pid)
        if spent - before <= _REST_TICKS / _TICKS:
            return


def resident_bytes(pid: int) -> dict[int, int]:
    """Resident memory of each process of the tree, by pid."""
    found = {}
    for member in tree(pid):
        fields = _stat(member)
        if fields is not None:
            found[member] = int(fields[21]) * _PAGE
    return found


def machine_busy_seconds() -> float:
    """CPU time that the whole machine has spent on anything, hypervisor's theft included."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / _TICKS
