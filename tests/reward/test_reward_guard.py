"""math-verify's wall: whatever happens to a child costs one answer at most, is counted, and leaves nothing behind."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from Verl import REPO_ROOT
from Verl.reward.guard import MathVerifyGuard, ScoringOutcome, shared_guard

HALF, HANGS = r"\boxed{\frac{1}{2}}", r"\boxed{9^{9^{9^{9}}}}"


@pytest.fixture
def make() -> Iterator[Callable[..., MathVerifyGuard]]:
    """Makes guards and closes them."""
    guards: list[MathVerifyGuard] = []

    def make(**limits) -> MathVerifyGuard:
        guards.append(MathVerifyGuard(**limits))
        return guards[-1]

    yield make
    for guard in guards:
        guard.close()


def assert_right(guard: MathVerifyGuard) -> None:
    assert guard.check(HALF, r"\boxed{0.50}") is ScoringOutcome.EQUAL
    assert guard.check(HALF, r"\boxed{0.51}") is ScoringOutcome.DIFFERENT


def exists(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def wait_until(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def busy(pid: int) -> bool:
    """Whether a process has used a tenth of a second of processor time within the last two."""
    fields = f"/proc/{pid}/stat"

    def ticks() -> int:
        with open(fields) as stat:
            return sum(map(int, stat.read().rpartition(")")[2].split()[11:13]))

    before = ticks()
    return wait_until(lambda: ticks() - before >= os.sysconf("SC_CLK_TCK") // 10, seconds=2.0)


def test_equal_different_and_counted(make) -> None:
    guard = make()
    assert guard.pids() == []  # nothing runs before it is needed
    assert_right(guard)
    assert guard.counts == {ScoringOutcome.EQUAL: 1, ScoringOutcome.DIFFERENT: 1}
    assert len(guard.pids()) == 1


def test_child_is_light(make) -> None:
    guard = make()
    assert_right(guard)
    with open(f"/proc/{guard.pids()[0]}/maps") as maps:
        assert "torch" not in maps.read()


def test_hanging_answer_costs_its_own_score_only(make) -> None:
    guard = make(cpu_seconds=0.5)
    assert_right(guard)
    (pid,) = guard.pids()
    start = time.monotonic()
    assert guard.check(HALF, HANGS) is ScoringOutcome.TIMEOUT
    assert time.monotonic() - start < 10
    assert_right(guard)
    assert guard.check(HANGS, HALF) is ScoringOutcome.TIMEOUT  # a truth that hangs, too
    assert_right(guard)
    assert guard.counts == {ScoringOutcome.EQUAL: 3, ScoringOutcome.DIFFERENT: 3, ScoringOutcome.TIMEOUT: 2}
    assert not exists(pid) and len(guard.pids()) == 1


def test_exploding_answer_is_a_failure(make) -> None:
    guard = make(cpu_seconds=30, memory_mb=256)
    assert_right(guard)
    (pid,) = guard.pids()
    assert guard.check(HALF, r"\boxed{(x+1)^{1000000}}") is ScoringOutcome.FAILURE
    assert not exists(pid) and len(guard.pids()) == 1  # its successor is already warming up
    assert_right(guard)
    assert guard.counts[ScoringOutcome.FAILURE] == 1


def test_answers_beside_a_hanging_one_are_right(make) -> None:
    guard = make(workers=2, cpu_seconds=0.5)
    answers = [HANGS if number in (3, 23) else rf"\boxed{{{number}.0}}" for number in range(40)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda number: guard.check(rf"\boxed{{{number}}}", answers[number]), range(40)))
    assert found == [ScoringOutcome.TIMEOUT if answer == HANGS else ScoringOutcome.EQUAL for answer in answers]
    assert len(guard.pids()) <= 2


def test_killed_while_idle(make) -> None:
    guard = make()
    assert_right(guard)
    os.kill(guard.pids()[0], signal.SIGKILL)
    assert_right(guard)
    assert guard.counts[ScoringOutcome.FAILURE] == 0


def _start_hanging(guard: MathVerifyGuard) -> tuple[threading.Thread, list[ScoringOutcome], int]:
    assert_right(guard)
    found: list[ScoringOutcome] = []
    thread = threading.Thread(target=lambda: found.append(guard.check(HALF, HANGS)), daemon=True)
    (pid,) = guard.pids()
    thread.start()
    assert busy(pid)
    return thread, found, pid


def test_killed_at_work_the_answer_is_tried_once_more(make) -> None:
    guard = make(cpu_seconds=120, wall_seconds=120)
    thread, found, first = _start_hanging(guard)
    os.kill(first, signal.SIGKILL)
    assert wait_until(lambda: bool(guard.pids()) and guard.pids()[0] != first)
    second = guard.pids()[0]
    assert wait_until(lambda: busy(second)) and not found
    time.sleep(1.5)  # past its start, which keeps it busy too
    os.kill(second, signal.SIGKILL)
    thread.join(15)
    assert found == [ScoringOutcome.FAILURE]
    assert_right(guard)
    assert guard.counts[ScoringOutcome.FAILURE] == 1


def test_innocent_answer_survives_a_kill(make) -> None:
    guard = make()
    assert_right(guard)
    (pid,) = guard.pids()
    os.kill(pid, signal.SIGSTOP)
    found: list[ScoringOutcome] = []
    thread = threading.Thread(target=lambda: found.append(guard.check(HALF, r"\boxed{0.5}")), daemon=True)
    thread.start()
    time.sleep(0.3)
    os.kill(pid, signal.SIGKILL)
    thread.join(15)
    assert found == [ScoringOutcome.EQUAL]


def test_stopped_child_is_given_up_after_the_wall_clock_limit(make) -> None:
    guard = make(wall_seconds=1.0)
    assert_right(guard)
    os.kill(guard.pids()[0], signal.SIGSTOP)
    assert guard.check(HALF, r"\boxed{0.5}") is ScoringOutcome.TIMEOUT
    assert_right(guard)


def test_waiting_for_a_processor_is_not_charged(make) -> None:
    guard = make(cpu_seconds=0.5)
    assert_right(guard)
    (pid,) = guard.pids()
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(1.5, os.kill, (pid, signal.SIGCONT)).start()
    assert guard.check(HALF, r"\boxed{0.5}") is ScoringOutcome.EQUAL
    assert guard.pids() == [pid]


def test_close_leaves_no_child(make) -> None:
    guard = make(workers=2, cpu_seconds=120, wall_seconds=120)
    thread, found, _ = _start_hanging(guard)
    assert_right(guard)  # the second child
    pids = guard.pids()
    assert len(pids) == 2
    guard.close()
    thread.join(15)
    assert found == [ScoringOutcome.FAILURE]
    assert guard.pids() == [] and not any(map(exists, pids))
    assert guard.check(HALF, HALF) is ScoringOutcome.FAILURE  # and none is started any more
    assert guard.pids() == []
    guard.close()


PARENT = """
import os, sys, threading, time
from Verl.reward.guard import MathVerifyGuard
guard = MathVerifyGuard(cpu_seconds=3)
guard.check("$1$", "$1$")
if sys.argv[1] == "busy":
    threading.Thread(target=guard.check, args=("$1$", "$9^{9^{9^{9}}}$"), daemon=True).start()
    time.sleep(0.5)
print(guard.pids()[0], flush=True)
if sys.argv[1] == "exits":
    sys.exit()
time.sleep(60)
"""


@pytest.mark.parametrize("state", ["idle", "busy", "exits"])
def test_children_die_with_their_parent(state: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, state], stdout=subprocess.PIPE, cwd=REPO_ROOT)
    pid = int(parent.stdout.readline())
    if state != "exits":
        assert exists(pid)
        parent.kill()
    parent.wait(15)
    assert wait_until(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    """Whether a process exists and is no zombie (an orphan waits for whoever adopts it)."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] != "Z"
    return False


def test_idle_child_notices_that_its_parent_is_gone_though_the_pipe_stays_open() -> None:
    fork = "os.fork() or (time.sleep(20), os._exit(0)); print("  # the fork holds a copy of the pipe
    script = PARENT.replace("print(", fork)
    parent = subprocess.Popen([sys.executable, "-c", script, "idle"], stdout=subprocess.PIPE, cwd=REPO_ROOT)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait(15)
    assert wait_until(lambda: not _runs(pid))


def test_child_that_can_not_start_is_counted_and_logged(make, monkeypatch, caplog) -> None:
    guard = make()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert [guard.check(HALF, HALF) for _ in range(3)] == [ScoringOutcome.FAILURE] * 3
    assert len([record for record in caplog.records if "did not start" in record.message]) == 1
    monkeypatch.undo()
    assert_right(guard)


def test_memory_limit_below_what_math_verify_needs(make) -> None:
    assert make(memory_mb=64).check(HALF, HALF) is ScoringOutcome.FAILURE


def test_request_larger_than_a_pipe(make) -> None:
    guard = make()
    assert guard.check(HALF, "x" * 100_000) is ScoringOutcome.FAILURE
    assert_right(guard)


@pytest.mark.parametrize("limits", [{"workers": 0}, {"cpu_seconds": 0}, {"wall_seconds": -1.0}, {"memory_mb": 0}])
def test_limits_must_be_positive(limits: dict) -> None:
    with pytest.raises(ValueError, match="positive"):
        MathVerifyGuard(**limits)


def test_forked_process_gets_a_guard_of_its_own(monkeypatch) -> None:
    monkeypatch.setattr("Verl.reward.guard._shared", None)
    guard = shared_guard()
    assert_right(guard)
    pids = guard.pids()
    pid = os.fork()
    if pid == 0:
        own = shared_guard()
        guard.close()  # must not touch the parent's children
        fine = own is not guard and own.check(HALF, HALF) is ScoringOutcome.EQUAL
        own.close()
        os._exit(0 if fine else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert shared_guard() is guard and guard.pids() == pids
    assert_right(guard)
    guard.close()
    assert not any(map(exists, pids))


def test_forked_copy_of_a_guard_at_work_can_be_closed(make) -> None:
    """The slot that is in use in the parent never comes back in the copy, which must not wait for it."""
    guard = make(cpu_seconds=120, wall_seconds=120)
    thread, found, worker = _start_hanging(guard)
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)  # ends the copy if it waits
        guard.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert guard.pids() == [worker] and not found  # still at it
    guard.close()
    thread.join(15)
