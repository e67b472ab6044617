"""What a person sees while a run goes on: a line per step, time left, and what the numbers mean.

Everything else that verl, Ray and their libraries print goes to <run>.log: `take_over` points the process's standard
output and error there (at the level of file descriptors, so that C libraries and child processes follow) and keeps the
terminal for the lines written here, which go to the log as well.
"""

import contextlib
import io
import os
import sys
import time
from pathlib import Path
from typing import TextIO

from Verl.trainer.benchmarks import evaluated_sets
from Verl.wording import duration, pass_at_1

_LEGEND = (
    "reward: mean of what trains; pass@1: share of right answers (strict rule), sampled at the training temperature;\n"
    "length: tokens per response; kl: to the reference model; |grad|: before clipping; left: time to the last step"
)


class Console:
    """Lines for the terminal, copied to the log."""

    def __init__(self, terminal: TextIO, log: TextIO | None = None):
        self.terminal, self.log = terminal, log

    @classmethod
    def take_over(cls, log_path: Path) -> "Console":
        """Standard output and error go to `log_path` from here on; the console keeps the terminal."""
        sys.stdout.flush()
        sys.stderr.flush()
        terminal = os.fdopen(os.dup(1), "w", buffering=1)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(log, number)
            setattr(sys, name, _log_stream(number))
        os.close(log)
        return cls(terminal, sys.stdout)

    def say_from_handler(self, text: str) -> None:
        """For signal handlers, which may have interrupted a `say`: past its buffers."""
        for stream in (self.terminal, self.log):
            if stream is not None:
                with contextlib.suppress(OSError, ValueError):
                    os.write(stream.fileno(), f"{text}\n".encode())

    def say(self, text: str = "") -> None:
        for stream in (self.terminal, self.log):
            if stream is not None:
                try:
                    print(text, file=stream, flush=True)
                except (BrokenPipeError, OSError):
                    # A closed terminal or a full disk under the log must not stop a run that can still go on.
                    continue


class _Tolerant(io.RawIOBase):
    """A file descriptor whose write never fails: a print into a log on a full disk must not end a run."""

    def __init__(self, number: int):
        self._number = number

    def fileno(self) -> int:
        return self._number

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return os.write(self._number, data)
        except OSError:
            return len(data)


def _log_stream(number: int) -> TextIO:
    return io.TextIOWrapper(io.BufferedWriter(_Tolerant(number)), encoding="utf-8", errors="replace", line_buffering=True)


class TrainingProgress:
    """The table of steps, with the time left taken from the steps and evaluations so far."""

    def __init__(self, console: Console, total_steps: int):
        self.console, self.total, self.rows = console, total_steps, 0
        self.began = time.monotonic()
        self.first_step: int | None = None

    def evaluation(self, step: int, metrics: dict[str, float]) -> None:
        names = evaluated_sets(metrics)
        if names:
            parts = [
                f"{name} {metrics[f'eval/{name}/pass@1']:.3f} ({metrics[f'eval/{name}/questions']:.0f} questions"
                f"{_failed_answers(metrics, name)})"
                for name in names
            ]
            drawn = {key: metrics[f"eval/{names[0]}/{key}"] for key in ("samples", "temperature", "top_p", "top_k")}
            label = pass_at_1(int(drawn["samples"]), drawn["temperature"], drawn["top_p"], int(drawn["top_k"]))
            self.console.say(f"  step {step}: {label}: " + ", ".join(parts))

    def step(self, step: int, metrics: dict[str, float]) -> None:
        if self.rows % 25 == 0:
            if self.rows == 0:
                self.console.say(_LEGEND)
            self.console.say(f"{'step':>11}  reward  pass@1  length       kl   |grad|  seconds  left")
        self.rows += 1
        if self.first_step is None:
            self.first_step, self.began = step, time.monotonic()
            left = metrics.get("timing_s/step", 0.0) * (self.total - step)
        else:
            left = (time.monotonic() - self.began) / (step - self.first_step) * (self.total - step)
        failed = _failed(metrics)
        self.console.say(
            f"{step:>5}/{self.total:<5}  {metrics.get('train/reward_mean', float('nan')):6.3f}"
            f"  {metrics.get('train/pass@1', float('nan')):6.3f}"
            f"  {metrics.get('train/response_length_mean', float('nan')):6.1f}"
            f"  {metrics.get('actor/kl_loss', float('nan')):7.4f}  {metrics.get('actor/grad_norm', float('nan')):7.3f}"
            f"  {metrics.get('timing_s/step', float('nan')):7.2f}  {duration(left)}{failed}"
        )


def _failed_answers(metrics: dict[str, float], name: str) -> str:
    failures = metrics.get(f"eval/{name}/failures", 0.0)
    return f", {failures:.0f} answers not scored" if failures else ""


def _failed(metrics: dict[str, float]) -> str:
    """The share of a step's rewards that could not be computed, if any."""
    failures, timeouts = (metrics.get(f"reward/{name}", 0.0) for name in ("failures", "timeouts"))
    drawn = metrics.get("ledger/responses_generated", 0.0)
    if not failures + timeouts or not drawn:
        return ""
    late = f", {timeouts:.0f} of them by the time limit" if timeouts else ""
    return f"  ! {failures + timeouts:.0f} of {drawn:.0f} rewards failed{late}"
