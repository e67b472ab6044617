"""A process that draws run after run's figure: matplotlib's import is most of what one figure costs.

    python -m Verl.study.drawing     a request a line on standard input, an answer a line on standard output
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import traceback

from Verl import REPO_ROOT


class Drawer:
    """Draws in a process that is started with the first figure, or by `start`, and again where it is gone."""

    def __init__(self) -> None:
        self._child: subprocess.Popen | None = None

    def start(self) -> None:
        """Start the process, so that it imports beside the run."""
        if self._child is None or self._child.poll() is not None:
            path = os.pathsep.join(filter(None, (str(REPO_ROOT), os.environ.get("PYTHONPATH"))))
            # Its standard error is the one of now, and not that of the run that the figure is about.
            self._child = subprocess.Popen(
                [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True, env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip

    def draw(self, run: str, result_dir: str, figure_dir: str) -> tuple[str, str]:
        """(what the figure shows, or what went wrong), one of them empty."""
        try:
            self.start()
            self._child.stdin.write(json.dumps([result_dir, run, figure_dir, os.getcwd()]) + "\n")
            self._child.stdin.flush()
            said, why = json.loads(self._child.stdout.readline())
            return said, why
        except (OSError, ValueError):
            return "", "the process that draws figures ended"

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    from Verl.analysis.figures.run_figure import draw_run

    for line in sys.stdin:
        result_dir, run, figure_dir, folder = json.loads(line)
        try:
            os.chdir(folder)
            answer = (draw_run(result_dir, run, figure_dir), "")
        except Exception as error:  # whatever a figure raises: the run is done, and the error is printed
            answer = ("", f"{traceback.format_exc()}\nrun_figure: {error}")
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        main()
