"""Runs a program that ends with its parent, however that ends.

usage: python -I -S mortal.py PARENT_PID USER PROGRAM [WORD]...

The kernel kills the program when the thread that started it is gone: a test run that is killed
leaves no server behind, not even one that is frozen or ignores signals. USER, empty for the
present one, is whom the program runs as; changing over here and not in subprocess keeps the
latter from forking a process that has gRPC's threads in it.
"""

import ctypes
import os
import pwd
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

_SET_DEATH_SIGNAL = 1


def mortal(command: Sequence[str], user: str = "") -> list[str]:
    """The command by which this thread starts a program that is not to outlive it."""
    return [sys.executable, "-I", "-S", str(Path(__file__)), str(os.getpid()), user, *command]


def main() -> None:
    """Becomes the program."""
    parent, user, *command = sys.argv[1:]
    if user:
        entry = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    # After the change of user, which would undo it.
    if ctypes.CDLL(None, use_errno=True).prctl(_SET_DEATH_SIGNAL, int(signal.SIGKILL)):
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != int(parent):
        sys.exit("the parent ended before this began")
    os.execvp(command[0], command)  # noqa: S606 - it is what this program is for


if __name__ == "__main__":
    main()
