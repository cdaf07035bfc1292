"""What the gate and the bench count, on code whose counts are known."""

import os
import subprocess
import sys
import time

from bench.common.counting import function_calls, instructions, moving_system_calls
from bench.common.procfs import cpu_seconds, machine_busy_seconds, resident_bytes, tree


def nothing() -> None:
    pass


def count_calls(times: int) -> int:
    with function_calls() as counted:
        for _ in range(times):
            nothing()
        return counted()


def count_instructions(times: int) -> int:
    with instructions() as counted:
        for _ in range(times):
            nothing()
        return counted()


def test_every_function_call_counts_once() -> None:
    assert count_calls(1_000) - count_calls(0) == 1_000


def test_functions_of_c_count_too() -> None:
    with function_calls() as counted:
        before = counted()
        len("")
        after = counted()
    # Reading the count is a call itself.
    assert after - before == 2


def test_instructions_grow_with_the_work() -> None:
    one, many = count_instructions(1), count_instructions(101)
    each = (many - one) / 100
    assert each >= 2
    assert each == int(each), "every call executes the same instructions"


def test_counting_ends_with_the_block() -> None:
    count_calls(1)
    count_instructions(1)
    assert sys.getprofile() is None


def test_system_calls_that_move_bytes_are_told_from_waiting() -> None:
    summary = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.003000           3      1000           epoll_wait
 20.00    0.001000           1       700       100 recvmsg
 10.00    0.000500           1       400           sendmsg
  5.00    0.000100           1        30         5 futex
------ ----------- ----------- --------- --------- ----------------
100.00    0.004600           2      2130       105 total
"""
    assert moving_system_calls(summary) == 1_100


def test_the_tree_holds_children_and_their_cpu() -> None:
    """A child that has burned CPU and still lives is part of its parent's tree."""
    burn = (
        "import time\nwhile time.process_time() < 0.3: pass\nprint('done', flush=True)\ninput()\n"
    )
    shell = ["sh", "-c", '"$0" -c "$1"; true', sys.executable, burn]
    with subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"done\n"
        members = tree(process.pid)
        spent = cpu_seconds(process.pid)
        resident = resident_bytes(process.pid)
        process.stdin.close()
    assert len(members) == 2
    assert members[0] == process.pid
    assert 0.25 <= spent < 5.0
    assert set(resident) == set(members)
    assert max(resident.values()) > 2**20


def test_a_process_that_is_gone_has_spent_nothing() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert cpu_seconds(process.pid) == 0.0
    assert resident_bytes(process.pid) == {}


def test_the_machine_is_busy_while_this_process_is() -> None:
    before, start = machine_busy_seconds(), time.process_time()
    while time.process_time() - start < 0.2:
        os.getpid()
    assert machine_busy_seconds() - before >= 0.15
