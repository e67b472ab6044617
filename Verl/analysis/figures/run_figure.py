"""The figure at the end of one run: ``python -m Verl.analysis.figures.run_figure <run>``; the trainer calls ``draw_run``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from Verl import FIGURE_DIR, RESULT_DIR
from Verl.analysis import stats
from Verl.analysis.figures.curves import plot_question
from Verl.analysis.figures.layout import shown_path
from Verl.analysis.runs.packed import exists
from Verl.analysis.runs.run_file import TEST, as_table, read_run
from Verl.analysis.runs.table import Runs, evaluation_files, question_samples


def _over_questions(result_dir: Path, run: str, first: int, last: int) -> str:
    """Interval over questions of the last test Pass@1, and of the gain if the first evaluation is there too.

    Where an evaluation has several answers per question, the intervals are of their mean, which is said.
    """
    files = evaluation_files(result_dir, run)
    if last not in files:
        return ""
    answers = question_samples(files[last])
    final = answers.mean(axis=1)
    if final.empty:
        return ""
    interval, several = stats.bootstrap_interval(final), answers.shape[1]
    mean = f"mean of {several} answers a question {interval.estimate:.3f}, " if several > 1 else ""
    text = f"; {mean}95 % interval over {len(final)} questions {interval.low:.3f} to {interval.high:.3f}"
    start = question_samples(files[first]).mean(axis=1) if first in files and first != last else final.iloc[:0]
    common = final.index.intersection(start.index)
    if len(common) > 1:
        gain = stats.paired_bootstrap(final.loc[common], start.loc[common])
        text += f", of the gain {gain.low:+.3f} to {gain.high:+.3f}"
    return text


def draw_run(result_dir: Path | str, run: str, figure_dir: Path | str) -> str:
    """Draw train and test Pass@1 of one run against steps to ``figure_dir/<run>.png`` and ``.pdf``.

    Returns:
        One line: where the figure is and what it shows, from the first to the last test Pass@1.
    Raises:
        FileNotFoundError: no ``<run>.jsonl`` and no ``<run>.log``. ValueError: the file holds no step.
    """
    result_dir = Path(result_dir)
    candidates = [result_dir / f"{run}.jsonl", result_dir / f"{run}.log"]
    path = next((candidate for candidate in candidates if exists(candidate)), None)
    if path is None:
        raise FileNotFoundError(f"no run {run!r} in {shown_path(result_dir)}: neither {run}.jsonl nor {run}.log")
    read = read_run(path)
    if not read.rows:
        raise ValueError("; ".join(read.problems))
    table = as_table([read])
    arm, pair = table.loc[0, "arm"], table.loc[0, "pair"]
    drawn = plot_question(Runs(table, read.problems), {pair: [arm]}, Path(figure_dir) / run, title=run)
    where = f"{shown_path(drawn.files[1])} (and .pdf) shows train and test Pass@1 of {run} against steps"
    tested = table[["step", TEST]].dropna() if TEST in table else table.iloc[:0]
    if tested.empty:
        return f"{where}; test Pass@1 was never evaluated."
    (first, start), (last, end) = tested.iloc[0], tested.iloc[-1]
    if first == last:
        only = f"test Pass@1 {start:.3f} at step {int(first)}, its only evaluation"
        return f"{where}: {only}{_over_questions(result_dir, run, int(first), int(last))}."
    return (
        f"{where}: test Pass@1 {start:.3f} at step {int(first)} -> {end:.3f} at step {int(last)} "
        f"(gain {end - start:+.3f}, one run{_over_questions(result_dir, run, int(first), int(last))})."
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m Verl.analysis.figures.run_figure", description=__doc__)
    parser.add_argument("run", help="name of the run, as in <result>/<run>.jsonl")
    parser.add_argument("--result", type=Path, default=RESULT_DIR, metavar="DIR")
    parser.add_argument("--figure", type=Path, default=FIGURE_DIR, metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        print(draw_run(options.result, options.run, options.figure))
    except (FileNotFoundError, ValueError) as error:
        print(f"run_figure: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
