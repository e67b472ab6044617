"""How a study of requested factors ends: the table, the sentence and the figure of its arms.

With `--cross` each factor's main effect and the interactions follow (Verl/statistics/crossed.py), with `--tune` each arm
stands at its best value. Table and figure also go to files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from Verl.analysis.figures.cli import needed, shown_path
from Verl.analysis.figures.curves import plot_question
from Verl.analysis.runs.run_file import LEDGER, TEST
from Verl.analysis.runs.table import Runs, last_scores, load_runs
from Verl.analysis.verdicts.compare import compare, shared_scores
from Verl.analysis.verdicts.comparison import Comparison
from Verl.analysis.verdicts.pairing import Curves, meeting_point, pairing_at
from Verl.analysis.verdicts.text import conclusion, number, p_text, point, verdict_words
from Verl.files import write_atomic
from Verl.statistics.crossed import Effect, crossed
from Verl.study import tuned as tuning
from Verl.study.design_text import table
from Verl.study.vary import StudyRequest
from Verl.trainer.best import VALIDATION

_ALSO = {VALIDATION}


def runs_of(result_dir: Path, pair: str, arms: Sequence[str], seeds: Sequence[int]) -> Runs:
    """The runs of these arms and seeds, and what is wrong with them."""
    found = load_runs(result_dir, lambda metric: needed(metric) or metric in _ALSO)
    rows = found.table
    if rows.empty:
        return found
    kept = rows[(rows["pair"] == pair) & rows["arm"].isin(arms) & rows["seed"].isin(seeds)]
    problems = [text for text in found.problems if any(text.startswith(f"{run}:") for run in set(kept["run"]))]
    return Runs(kept.reset_index(drop=True), problems, found.broken, found.same_as)


class StudyOutcome:
    """The result of a study.

    Args:
        request: what was run. arm_of: declared name -> the arm's name in its runs. seeds: of each arm.
        axis: what arms are compared at (AXES).
        margin: the largest difference that does not matter.
    """

    def __init__(
        self, request: StudyRequest, arm_of: Mapping[str, str], seeds: Sequence[int], result_dir: Path, axis: str, margin: float
    ):  # fmt: skip
        self.request, self.result_dir, self.axis, self.margin, tuned = request, result_dir, axis, margin, request.tuned
        self.pair = request.pair.name
        self.runs = runs_of(result_dir, self.pair, list(arm_of.values()), seeds)
        self.arm_of = self.all_arms = dict(arm_of)
        self.chosen: dict[str, tuning.Choice] = {}
        if tuned is not None and not self.runs.table.empty:
            self.chosen = tuning.choose(tuned, self.runs.table, arm_of)
            self.arm_of = {arm: arm_of[one.arm] for arm, one in self.chosen.items()}

    def lines(self, folder: Path, name: str) -> list[str]:
        """Everything that there is to say; the table and the figure are written to `folder`/`name`.md and .pdf, .png."""
        if self.runs.table.empty or TEST not in self.runs.table:
            return [f"no run of the study has {TEST}: there is nothing to compare"]
        before = [f"problem: {problem}" for problem in self.runs.problems]
        if self.request.tuned is not None:
            before += [*tuning.lines(self.request.tuned, self.chosen, self.runs.table, self.all_arms), ""]
        if self.request.reference not in self.arm_of:
            return [*before, f"{self.request.reference} has no result, and the others are compared with it"]
        found = self.comparisons()
        rows = [self._row(arm, one) for arm, one in found.items()]
        head = ("arm", "seeds", "start", "final", f"against {self.request.reference}", "95 % interval", "p", "verdict")
        said = [*before, *table(head, rows), "", conclusion([one for one in found.values() if one is not None])]
        said += [*self._short_of_budget(), *(["", *self.crossed_lines()] if self.request.grid else [])]
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / f"{name}.md", _markdown(head, rows, said[len(before) + len(rows) + 1 :]))
        drawn = plot_question(self.runs, {self.pair: list(self.arm_of.values())}, folder / name, self._title(), self.axis)
        return [*said, f"{shown_path(folder / name)}.md, {', '.join(path.suffix for path in drawn.files)}: table and figure"]

    def comparisons(self) -> dict[str, Comparison | None]:
        """Arm -> its comparison with the reference, None for the reference itself."""
        base = self.arm_of[self.request.reference]
        others = {name: arm for name, arm in self.arm_of.items() if arm != base}
        family = [(self.pair, arm, base) for arm in others.values()]
        found = dict(zip(others, compare(self.runs, family, self.result_dir, self.axis, margin=self.margin)))
        return {name: found.get(name) for name in self.arm_of}

    def _row(self, arm: str, one: Comparison | None) -> tuple[str, ...]:
        rows = self.runs.table[self.runs.table["arm"] == self.arm_of[arm]]
        last = last_scores(rows)
        start = rows.loc[rows["step"] == 0, TEST].mean()
        value = f" at {self.chosen[arm].value}" if arm in self.chosen else ""
        row = [f"{arm}{value}", str(rows["seed"].nunique()), "-" if np.isnan(start) else f"{start:.3f}"]
        row.append("-" if last is None else f"{last[1].mean():.3f}")
        if one is None:
            return (*row, "reference", "", "", "")
        if not one.known:
            difference = "-" if one.judged is None else number(one.judged.found.difference)
            return (*row, difference, "unknown", "-", "cannot be compared")
        judged = one.judged.found
        between = f"{number(judged.low)} to {number(judged.high)}"
        return (*row, number(judged.difference), between, p_text(judged.p), verdict_words(one))

    def _title(self) -> str:
        tuned = [f"at each arm's best {self.request.tuned.key.rpartition('.')[2]}"] if self.request.tuned else []
        return ", ".join([" / ".join(self.request.titles) or self.pair, *tuned])

    def _short_of_budget(self) -> list[str]:
        """Arms that ended by their steps before the others' budget: they are all compared at what the shortest spent."""
        column = LEDGER.get(self.axis)
        if column is None or column not in self.runs.table:
            return []
        ends = self.runs.table.groupby("arm")[column].max()
        most = ends.max()
        ends = {name: ends[arm] for name, arm in self.arm_of.items() if arm in ends}
        short = [f"{name} ({point(self.axis, end)})" for name, end in ends.items() if end < 0.9 * most]
        return [f"ended before the others' {point(self.axis, most)}: {', '.join(short)}"] if short else []

    # ---- every combination ----------------------------------------------------------------------------------------

    def effects(self) -> list[Effect]:
        """Main effects and interactions; empty where a combination has no scores."""
        table_ = self._scores()
        scores = {levels: table_.get(self.arm_of.get(arm)) for levels, arm in self.request.grid.items()}
        return [] if any(one is None for one in scores.values()) else crossed(scores, margin=self.margin)

    def _scores(self) -> dict[str, np.ndarray]:
        """Arm -> scores, seeds x questions x answers at the last common step, or seeds x 1 at a common budget."""
        base, arms = self.arm_of[self.request.reference], list(self.arm_of.values())
        if self.axis == "steps":
            return shared_scores(self.runs, self.result_dir, self.pair, arms, base) or {}
        known = Curves(self.runs, self.axis, TEST)
        curves = {arm: known.of(self.pair, arm) for arm in arms}
        if not all(curves.values()):
            return {}
        at = min(meeting_point(one, one, self.axis) for one in curves.values())
        values = {arm: pairing_at(self.pair, arm, base, at, self.axis, one, one).ours for arm, one in curves.items()}
        seeds = sorted(set().union(*values.values()))
        return {arm: np.array([[of_arm.get(seed, np.nan)] for seed in seeds]) for arm, of_arm in values.items()}

    def crossed_lines(self) -> list[str]:
        """The table of main effects and interactions, and a sentence for each interaction of two."""
        found = self.effects()
        words = [key.rpartition(".")[2] for key in next(iter(self.request.study.factors.values())).keys]
        if not found:
            return ["main effects and interactions are unknown: not every combination has evaluations at a common point"]
        first = next(iter(self.request.grid))
        rows = [(_named(one, words, first), number(one.difference), _between(one), p_text(one.p), one.verdict) for one in found]
        head = ("effect", "difference", "95 % interval", "p", "verdict")
        note = f"; {found[0].note}" if found[0].note else ""
        shown = [one for one in found if len(one.factors) == 2 or (len(one.factors) > 2 and one.verdict != "undecided")]
        many = f"{found[0].seeds} paired seeds; simultaneous over {len(found)}{note}"
        return [
            f"main effects and interactions in test Pass@1 ({many}):",
            *table(head, rows), *(_sentence(one, words, first) for one in shown),
        ]  # fmt: skip


def _named(one: Effect, words: Sequence[str], first: Sequence[str]) -> str:
    parts = [f"{words[f]} {first[f]} -> {level}" for f, level in zip(one.factors, one.levels)]
    return f"{parts[0]}, mean over the rest" if len(parts) == 1 else " x ".join(parts)


def _between(one: Effect) -> str:
    return f"{number(one.low)} to {number(one.high)}" if np.isfinite(one.high - one.low) else "unknown"


def _sentence(one: Effect, words: Sequence[str], first: Sequence[str]) -> str:
    name, size = _named(one, words, first), f"{number(one.difference)} ({_between(one)})"
    said = {
        "better": "together they add more than the sum of what each adds alone",
        "worse": "together they add less than the sum of what each adds alone",
        "equivalent": "no interaction beyond the margin: what each adds does not depend on the other",
        "undecided": "whether one's effect depends on the other's level is not shown",
    }
    return f"{name}: {size}: {said[one.verdict]}."


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]], below: Sequence[str]) -> str:
    """The table, and as they stand the lines below it."""
    lines = [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]
    return "\n".join([*lines, "", "```", *"\n".join(below).strip().split("\n"), "```"]) + "\n"
