"""A process that carries out run after run for the study runner (hosts.py), each as its script would.

What does not depend on the run stays: imports, Ray, worker processes, the loaded model, what draws the figure. What does is
made anew, in the order of a fresh process: environment, folder, arguments, standard output, request to stop, and what
Verl/adapter/process_state.py lists. A run that does not finish ends the process with the run's own status.

    python -m Verl.study.host_process ANSWERS     requests on standard input, a status a line on file descriptor ANSWERS
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from omegaconf import DictConfig

from Verl import REPO_ROOT
from Verl.adapter.device import device_for
from Verl.errors import UserError
from Verl.reward import guard, timed
from Verl.signals import raise_on_stop
from Verl.study.drawing import Drawer
from Verl.study.shipped import print_args
from Verl.trainer import launch
from Verl.trainer.interruption import REQUEST
from Verl.trainer.run_log import RunLog
from Verl.trainer.task_runner import InProcessRunner, stop_ray

ANEW = 75  # the exit status that asks for a new process for the same run: this one is not what the run needs


class Processes:
    """What a run is carried out in (`launch.Within`)."""

    def __init__(self) -> None:
        self.host: Any = None
        self.goes_on = True
        self._used = False
        self._drawer = Drawer()

    def begin(self, config: DictConfig) -> None:
        """Decide where the run is carried out.

        Raises:
            SystemExit: ANEW; another process has to do it.
        """
        device = device_for(config.trainer.device)
        self.goes_on = device.can_host(config)
        if self._used and not (self.goes_on and self.host.takes(config) and self.host.is_well()):
            raise SystemExit(ANEW)
        self._used = True
        if self.goes_on:
            self.host = self.host or device.host()
            self._drawer.start()

    def run(self, config: DictConfig, algorithm: str, run_log: RunLog) -> None:
        if self.host is None:
            InProcessRunner(config, algorithm, run_log).run()
        else:
            self.host.run(config, algorithm, run_log)

    def draw(self, run: str, result_dir: str, figure_dir: str) -> tuple[str, str]:
        return self._drawer.draw(run, result_dir, figure_dir)

    def renew(self) -> None:
        """The process as it was before its first run."""
        REQUEST.forget()
        if self.host is not None:
            self.host.renew()

    def close(self) -> None:
        if self.host is not None:
            self.host.close()
        stop_ray()
        self._drawer.close()


def carry_out(request: dict[str, Any], processes: Processes) -> int:
    """One run, as `bash SCRIPT OVERRIDES` would; its exit status."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(REPO_ROOT)
    processes.renew()
    script, overrides = Path(request["script"]), request["overrides"]
    typed = "".join(f" {text}" for text in overrides)
    os.environ.update(BANDIT_CWD=request["folder"], BANDIT_COMMAND=f"bash Running-Bash/{script.name}{typed}")
    try:
        with _said_in(Path(request["console"])):
            return _launched(script, overrides, processes)
    except OSError:  # the console can't be opened
        traceback.print_exc()
        return 1
    finally:
        guard.close_shared()
        timed.close_all()


def _launched(script: Path, overrides: list[str], processes: Processes) -> int:
    try:
        algorithm, scripted, user = print_args(script.name, overrides, script.parent)
        sys.argv = [f"Verl.trainer.main_ppo_{algorithm}", *scripted, "@", *user]
        launch.main(algorithm, sys.argv[1:], processes)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return launch.BAD_INPUT
    except KeyboardInterrupt:
        return launch.STATUS
    except Exception:  # as in a process of its own: the traceback, and status 1
        traceback.print_exc()
        return 1
    return 0


@contextmanager
def _said_in(console: Path) -> Iterator[None]:
    """Standard output and error go to a run's console file meanwhile; the run points them to its log."""
    with open(console, "ab") as file:
        before = [(number, os.dup(number)) for number in (1, 2)]
        streams = sys.stdout, sys.stderr
        for number, _ in before:
            os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        sys.stdout, sys.stderr = streams
        for number, copy in before:
            os.dup2(copy, number)
            os.close(copy)


def serve(requests: TextIO, answers: TextIO) -> int:
    """Requests until there are none, or until a run does not finish; the exit status."""
    processes = Processes()
    try:
        for line in requests:
            status = carry_out(json.loads(line), processes)
            if status != 0 or not processes.goes_on or REQUEST.made:
                return status
            raise_on_stop()  # nothing is to be saved between two runs
            print(status, file=answers, flush=True)
        return 0
    finally:
        processes.close()


def main() -> None:
    raise_on_stop()
    answers = int(sys.argv[1])
    os.set_inheritable(answers, False)
    requests = os.dup(0)  # what a run starts must not read them
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    try:
        sys.exit(serve(os.fdopen(requests), os.fdopen(answers, "w", buffering=1)))
    except KeyboardInterrupt:
        sys.exit(launch.STATUS)


if __name__ == "__main__":
    main()
