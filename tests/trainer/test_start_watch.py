"""A start that can't succeed says what it waits for, and ends with the reason. Starts of a second here, for minutes."""

import subprocess
import sys
import time

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


def start(kind: str) -> tuple[int, str, float]:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", PROGRAM, kind], capture_output=True, text=True, timeout=120)
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
