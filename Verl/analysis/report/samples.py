"""Sample answers for the report: the same test questions before training and at the end, with what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from Verl.analysis.report.run_tables import arms_in_order, final_score
from Verl.analysis.runs.configs import first_runs
from Verl.analysis.runs.table import evaluation_files
from Verl.analysis.samples.view import Filters, Sample, facts, find_questions, read_step, visible
from Verl.analysis.style import arm_label
from Verl.design.declared import declared
from Verl.errors import UserError

SPLIT = "test"
_WANTED = (  # (right before, right after, how many, in words)
    (False, True, 2, "learnt"),
    (True, True, 1, "right before and after"),
    (False, False, 2, "still wrong"),
    (True, False, 1, "lost"),
)
_LONG = 600  # characters of an answer that are shown


@dataclass(frozen=True)
class Answer:
    """One answer, ready to be shown; ``kind``: right, almost (right, not in the format) or wrong."""

    step: int
    text: str
    facts: str
    kind: str


@dataclass(frozen=True)
class BeforeAndAfter:
    """One question with its answers before training and at the end; question and truth are None without the data."""

    index: int
    what: str
    question: str | None
    truth: str | None
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class RunSamples:
    """The picked answers of one run, or why there are none."""

    run: str
    title: str
    pairings: tuple[BeforeAndAfter, ...]
    why_not: str | None = None


def _answer(sample: Sample) -> Answer:
    text = visible(sample["text"])
    cut = f"{text[:_LONG]} \N{HORIZONTAL ELLIPSIS} ({len(text):,} characters)" if len(text) > _LONG else text
    kind = "right" if sample["strict"] else "almost" if sample["flexible"] > 0 else "wrong"
    return Answer(sample["step"], cut or "(empty)", facts(sample), kind)


def _read(path: Path) -> dict[tuple[str, int], Sample]:
    """The first sample of every test question of one evaluation, in the order of the questions."""
    rows = read_step(path, Filters(evaluation=SPLIT)).to_pylist()
    return {(row["data_source"], row["index"]): row for row in rows if row["rollout"] == rows[0]["rollout"]}


def run_samples(result_dir: Path, run: str, title: str) -> RunSamples:
    """A few test questions of one run: what it answered before training and at its last evaluation."""
    files = evaluation_files(result_dir, run)
    if len(files) < 2:
        return RunSamples(run, title, (), "its evaluations are not stored")
    first, last = min(files), max(files)
    try:
        before, after = _read(files[first]), _read(files[last])
    except UserError:
        return RunSamples(run, title, (), "its evaluations hold scores but no texts (samples.enable=false)")
    common = [key for key in before if key in after]
    picked = []
    for was, is_now, count, what in _WANTED:
        fitting = [k for k in common if (before[k]["strict"] > 0, after[k]["strict"] > 0) == (was, is_now)]
        picked += [(key, what) for key in fitting[:count]]
    questions = find_questions(result_dir / run, {key for key, _ in picked}, SPLIT)
    pairings = []
    for key, what in picked:
        question, truth = questions.get(key, (None, None))
        shown = (visible(question) if question else None, visible(truth) if truth else None)
        pairings.append(BeforeAndAfter(key[1], what, *shown, (_answer(before[key]), _answer(after[key]))))
    return RunSamples(run, title, tuple(pairings), None if pairings else "no test question was answered at both steps")


def samples(result_dir: Path, table: pd.DataFrame, pair: str) -> list[RunSamples]:
    """The base line and the arm of the highest last test Pass@1, controls aside; of each the run of the lowest seed."""
    runs = first_runs(table, pair)
    return [run_samples(result_dir, runs[arm], arm_label(arm)) for arm in _shown(table, pair) if arm in runs]


def _shown(table: pd.DataFrame, pair: str) -> Sequence[str]:
    means = {arm: final_score(table, pair, arm) for arm in arms_in_order(table, pair) if "_control_" not in arm}
    best = max((arm for arm, mean in means.items() if mean == mean), key=means.__getitem__, default=None)
    return [arm for arm in dict.fromkeys([declared().base_line, best]) if arm is not None]
