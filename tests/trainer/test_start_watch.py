"""A start that can't succeed says what it waits for, and ends with the reason. Starts of a second here, for minutes."""

import subprocess
import sys
import time

from Verl.trainer import start_watch

PROGRAM = """
import sys, time
from Verl.trainer.start_watch import StartWatch

def say(text):
    print(text, flush=True)

with StartWatch(say, lambda reason: print("recorded:", reason, flush=True), 0.5, 3.0, 1.0) as watch:
    watch.stage("a worker", needs_workers=sys.argv[1] != "idle")
    began = time.monotonic()
    while sys.argv[1] != "busy" or time.monotonic() - began < 5:
        try:
            time.sleep(0.1)
            if sys.argv[1] == "busy":
                watch.stage("a large model")
                sum(range(2_000_000))
        except Exception:
            if sys.argv[1] != "deaf":
                raise
print("started", flush=True)
"""


# A run whose Ray never comes up.
RUN = """
import time
from functools import partial
from types import SimpleNamespace
from Verl.trainer import task_runner

class Runner(task_runner.InProcessRunner):
    def _start_ray(self):
        time.sleep(600)
    def _trainer_class(self):
        pass

task_runner.check_with_verl = lambda config: None
task_runner.StartWatch = partial(task_runner.StartWatch, say_after=0.5, give_up_after=3.0, last_seconds=1.0)
console = SimpleNamespace(say=lambda text: print(text, flush=True))
run_log = SimpleNamespace(console=console, describe=lambda **record: print("recorded:", record, flush=True))
Runner(SimpleNamespace(trainer=SimpleNamespace(device="cpu")), "grpo", run_log).run()
"""


def start(kind: str, program: str = PROGRAM) -> tuple[int, str, float]:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program, kind], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr, time.monotonic() - began


def test_no_worker_ends_the_start_with_the_reason():
    status, output, _ = start("deaf no more")
    assert status == 1 and "waiting for a worker" in output and "RunStopped" in output
    assert "no worker of Ray's came up" in output


def test_a_start_that_swallows_every_error_is_cut_off():
    status, output, _ = start("deaf")
    assert status == 1 and "recorded: waited" in output and "started" not in output


def test_a_start_that_does_nothing_is_given_up():
    status, output, _ = start("idle")
    assert status == 1 and "nothing was computed or read" in output


def test_a_slow_start_is_left_alone():
    status, output, _ = start("busy")
    assert status == 0 and output.endswith("started\n")


def test_a_run_is_watched_from_its_first_stage():
    status, output, _ = start("", RUN)
    assert status == 1 and "waiting for Ray's processes" in output and "nothing was computed or read" in output


def test_half_a_minute_is_silent_at_most_and_five_minutes_are_lost():
    assert start_watch.SAY_SECONDS <= 30 and start_watch.GIVE_UP_SECONDS <= 300
