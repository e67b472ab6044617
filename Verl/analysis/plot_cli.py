"""The command line that all ``Running-Results/plot_*.py`` share: a script declares its question, this does the rest."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from Verl.analysis.figures import AXES, expand_arms, plot_question
from Verl.analysis.run_files import LEDGER
from Verl.analysis.runs import Runs, load_runs
from Verl.analysis.verdict import BASE_LINE, gains, verdicts

ROOT = Path(__file__).resolve().parents[2]
RESULT_DIR = ROOT / "Running-Results" / "result"
FIGURE_DIR = ROOT / "Running-Results" / "Figure"
_PLOTTED = {"eval/train/pass@1", "eval/test/pass@1", "train/reward_mean", "timing_s/step", *LEDGER.values()}


@dataclass(frozen=True)
class Question:
    """What one figure asks.

    Its file name, a title, the arms in order (``control*`` stands for all that fit), the arm they are compared with,
    the budget axes it is drawn against by default, and whether each arm is also compared with its own start.
    """

    name: str
    title: str
    arms: tuple[str, ...]
    base_line: str = BASE_LINE
    axes: tuple[str, ...] = ("steps",)
    from_start: bool = False


def shown_path(path: Path) -> str:
    """``path`` as a user would type it: from the current folder if it lies below."""
    path = Path(path).resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def common_options(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--result", type=Path, default=RESULT_DIR, metavar="DIR", help="folder of the runs' jsonl")
    parser.add_argument("--figure", type=Path, default=FIGURE_DIR, metavar="DIR", help="folder to draw into")
    parser.add_argument("--pairs", nargs="+", metavar="PAIR", help="model_data pairs, e.g. tiny_arith; default: all")
    return parser


def needed(metric: str) -> bool:
    """Whether the figures need a metric: a run logs scores of others."""
    return metric in _PLOTTED


def load_or_say(name: str, result_dir: Path) -> Runs | None:
    """The runs with what the figures need; None, and why on the console, if there are none."""
    runs = load_runs(result_dir, needed)
    if runs.table.empty:
        print(f"{name}: no run found in {shown_path(result_dir)}; nothing drawn.", file=sys.stderr)
        for problem in runs.problems:
            print(f"problem: {problem}", file=sys.stderr)
        return None
    return runs


def relevant_problems(runs: Runs, arms: list[str]) -> list[str]:
    """The problems that concern the arms, said once each."""
    return [p for p in runs.problems if any(p.startswith((f"{arm} on ", f"{arm}_")) for arm in arms)]


def main(question: Question, description: str, arguments: list[str] | None = None) -> int:
    """Draw the question against each chosen axis; print where, what is missing, what is wrong, and the verdicts."""
    parser = common_options(description)
    parser.add_argument("--axis", nargs="+", choices=AXES, default=list(question.axes), help="budget axes")
    options = parser.parse_args(arguments)
    runs = load_or_say(question.name, options.result)
    if runs is None:
        return 1
    arms = expand_arms(question.arms, runs.table)
    for problem in relevant_problems(runs, arms):
        print(f"problem: {problem}")
    for axis in options.axis:
        path = options.figure / (question.name if axis == "steps" else f"{question.name}_{axis}")
        drawn = plot_question(runs, arms, path, question.title, axis, options.pairs)
        print(f"{shown_path(drawn.files[0])}, .png: {question.title}, against {AXES[axis]}.")
        for note in drawn.notes:
            print(f"  note: {note}")
        for comparison in verdicts(runs, arms, question.base_line, options.pairs, options.result, axis):
            print(f"  {comparison.sentence}")
    if question.from_start:
        for comparison in gains(runs, arms, options.pairs, options.result):
            print(f"  {comparison.sentence}")
    return 0
