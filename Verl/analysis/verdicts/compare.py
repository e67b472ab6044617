"""One plain sentence per comparison: how far an arm is from the base line, and whether that is beyond noise.

Arms are paired with the base line by seed and, where the per-question evaluations are there, by question. All
comparisons of one call are one family for Holm's correction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from Verl.analysis import stats
from Verl.analysis.runs.files import LEDGER, TEST, listed
from Verl.analysis.runs.table import Runs, evaluation_files, question_scores
from Verl.analysis.style import arm_label
from Verl.analysis.verdicts.comparison import Comparison
from Verl.analysis.verdicts.text import no_run, number, p_text, point, sentence_of
from Verl.design.declared import declared

START = "its start"
_RULES = {"pass@1": "strict", "flexible": "flexible", "format": "format"}


def _curves(table: pd.DataFrame, pair: str, arm: str, axis: str, metric: str) -> dict[int, pd.Series]:
    """Seed -> metric over the budget, where both are known."""
    column = "step" if axis == "steps" else LEDGER[axis]
    rows = table[(table["pair"] == pair) & (table["arm"] == arm)]
    if rows.empty or metric not in rows or column not in rows:
        return {}
    rows = rows[np.isfinite(rows[metric].astype(float)) & rows[column].notna()]
    return {int(seed): group.set_index(column)[metric].astype(float) for seed, group in rows.groupby("seed")}


def _meeting_point(ours: dict[int, pd.Series], theirs: dict[int, pd.Series], axis: str) -> float | None:
    """The last step that both arms evaluate, or the largest budget that all runs of both arms reach.

    Seeds of one arm spend slightly different budgets; a run that broke off (under 80 % of the arm's longest) does not
    pull the point down for the others but drops out.
    """
    if axis == "steps":
        common = {x for curve in ours.values() for x in curve.index} & {x for c in theirs.values() for x in c.index}
        return max(common, default=None)
    ends = [[curve.index[-1] for curve in curves.values()] for curves in (ours, theirs)]
    return min(end for of_arm in ends for end in of_arm if end >= 0.8 * max(of_arm))


def _value_at(curve: pd.Series, at: float, axis: str) -> float | None:
    """The curve at a step that was evaluated, or at a budget, straight between evaluations; None if it ends before."""
    if axis == "steps":
        return float(curve[at]) if at in curve.index else None
    if not curve.index[0] <= at <= curve.index[-1]:
        return None
    return float(np.interp(at, curve.index, curve.to_numpy()))


def _question_grids(files: Sequence[tuple[Path | None, Path | None]], metric: str):
    """Both sides' scores, seeds x questions, on the questions that all files hold; None if a file or the split lacks.

    ``files``: per seed the evaluation of the arm and of what it is compared with.
    """
    _, split, rule = metric.split("/")
    if any(path is None for both in files for path in both):
        return None
    scores = [[question_scores(both[side], split, _RULES[rule]) for both in files] for side in (0, 1)]
    common = sorted(set.intersection(*(set(series.index) for side in scores for series in side)))
    if len(common) < 2:
        return None
    return [np.array([series.loc[common].to_numpy(dtype=float) for series in side]) for side in scores]


def _run_names(runs: Runs, pair: str, arm: str) -> dict[int, str]:
    rows = runs.table[(runs.table["pair"] == pair) & (runs.table["arm"] == arm)].drop_duplicates("seed")
    return dict(zip(rows["seed"].astype(int), rows["run"]))


def _test(a: Sequence[float], b: Sequence[float], grids) -> dict:
    """The test's part of a Comparison: over seeds and questions where these are known, else over the seeds' averages."""
    if grids is None:
        return {"result": stats.paired_seeds(a, b), "questions": 0, "noise": stats.noise_of(a, b)}
    return {
        "result": stats.paired_two_way(*grids),
        "questions": grids[0].shape[1],
        "noise": stats.noise_of(*grids),
    }


def _over_questions_only(grids) -> str:
    """What one seed's answers say: of these two models, not of the arms."""
    if grids is None:
        return ""
    a_Q, b_Q = grids[0][0], grids[1][0]
    if not {*a_Q, *b_Q} <= {0.0, 1.0}:
        return ""
    p = p_text(stats.mcnemar_exact(a_Q, b_Q))
    return f" (these two models differ over their {len(a_Q)} questions with exact McNemar p {p}; other seeds may not)"


def _compare(runs: Runs, result_dir, pair: str, arm: str, base: str, axis: str, metric: str) -> Comparison:
    """The comparison without its family: p not adjusted yet, the sentence only where there is nothing to test."""
    ours, theirs = (_curves(runs.table, pair, name, axis, metric) for name in (arm, base))

    def untold(why: str, at=None, seeds=()) -> Comparison:
        sentence = f"{pair}: {arm_label(arm)} against {arm_label(base)} cannot be told: {why}."
        return Comparison(pair, arm, base, axis, at, tuple(seeds), 0, None, None, sentence, why_not=why)

    for name, curves in ((arm, ours), (base, theirs)):
        rows = runs.table[(runs.table["pair"] == pair) & (runs.table["arm"] == name)]
        if not curves:
            return untold(no_run(name) if rows.empty else f"no run of {name} has {metric}")
        if rows["config_hash"].nunique() > 1:
            return untold(f"the runs of {name} have {rows['config_hash'].nunique()} different configurations")
    at = _meeting_point(ours, theirs, axis)
    if at is None or at <= 0:
        return untold("the two were never evaluated at the same step of training")
    a, b = ({s: _value_at(c, at, axis) for s, c in curves.items()} for curves in (ours, theirs))
    seeds = sorted(s for s in a.keys() & b.keys() if a[s] is not None and b[s] is not None)
    left_out = sorted((a.keys() | b.keys()) - set(seeds))
    notes = (f"not paired at this point: seed {listed(left_out)}",) if left_out else ()
    grids = None
    if result_dir is not None and axis == "steps" and seeds:
        names = [_run_names(runs, pair, name) for name in (arm, base)]
        files = [tuple(evaluation_files(result_dir, run[s]).get(int(at)) for run in names) for s in seeds]
        grids = _question_grids(files, metric)
    if len(seeds) < 2:
        seen = f", where {number(a[seeds[0]] - b[seeds[0]])} was seen{_over_questions_only(grids)}" if seeds else ""
        why = f"{len(seeds)} paired seed(s) at {point(axis, at)}{seen}, and noise over seeds needs two"
        return untold(why, at, seeds)
    tested = _test([a[s] for s in seeds], [b[s] for s in seeds], grids)
    return Comparison(pair, arm, base, axis, at, tuple(seeds), adjusted_p=None, sentence="", notes=notes, **tested)


def _gain(runs: Runs, result_dir, pair: str, arm: str, metric: str) -> Comparison:
    """An arm's last evaluation against its own evaluation before training."""
    curves = _curves(runs.table, pair, arm, "steps", metric)
    last = max((curve.index[-1] for curve in curves.values()), default=0)
    seeds = sorted(seed for seed, curve in curves.items() if 0 in curve.index and last in curve.index)
    if last == 0 or len(seeds) < 2:
        seen = (
            f"{len(seeds)} seed(s) evaluated before training and at step {int(last)}"
            if last
            else "no evaluation after step 0"
            if curves
            else no_run(arm)
        )
        sentence = f"{pair}: whether {arm_label(arm)} improves on its start cannot be told: {seen}."
        return Comparison(pair, arm, START, "steps", float(last), tuple(seeds), 0, None, None, sentence, why_not=seen)
    grids = None
    if result_dir is not None:
        files = [evaluation_files(result_dir, _run_names(runs, pair, arm)[seed]) for seed in seeds]
        grids = _question_grids([(of_run.get(int(last)), of_run.get(0)) for of_run in files], metric)
    a, b = ([float(curves[seed][step]) for seed in seeds] for step in (last, 0))
    tested = _test(a, b, grids)
    return Comparison(pair, arm, START, "steps", float(last), tuple(seeds), adjusted_p=None, sentence="", **tested)


def compare(
    runs: Runs,
    family: Sequence[tuple[str, str, str]],
    result_dir: Path | str | None = None,
    axis: str = "steps",
    metric: str = TEST,
    alpha: float = 0.05,
) -> list[Comparison]:
    """The comparisons (pair, arm, what it is compared with) of one family, with Holm's correction over all of them.

    Args:
        runs: from ``load_runs``.
        result_dir: where the per-question evaluations lie; None or missing files compare the seeds' averages.
        axis: "steps" compares at the last common step; "queries", "responses", "tokens", "gradient_samples" or
            "hours" at the last common budget, between evaluations.
    Returns:
        Comparisons in the given order. Those that cannot be told are not in Holm's family, and those of arms with identical
        logs are in it once.
    """
    if axis != "steps" and axis not in LEDGER:
        raise ValueError(f"unknown axis {axis!r}; known: steps, {', '.join(LEDGER)}")
    return _judged([_compare(runs, result_dir, *one, axis, metric) for one in family], runs, metric, alpha)


def verdicts(
    runs: Runs,
    arms: Sequence[str],
    base_line: str | None = None,
    pairs: Sequence[str] | None = None,
    result_dir: Path | str | None = None,
    axis: str = "steps",
    metric: str = TEST,
    alpha: float = 0.05,
) -> list[Comparison]:
    """Every arm against the base line (by default the study's) on every pair, as one family; itself is skipped."""
    base_line = base_line or declared().base_line
    pairs = sorted(runs.table["pair"].unique()) if pairs is None else pairs
    family = [(pair, arm, base_line) for pair in pairs for arm in arms if arm != base_line]
    return compare(runs, family, result_dir, axis, metric, alpha)


def gains(
    runs: Runs,
    arms: Sequence[str],
    pairs: Sequence[str] | None = None,
    result_dir: Path | str | None = None,
    metric: str = TEST,
    alpha: float = 0.05,
) -> list[Comparison]:
    """Does an arm improve at all? Its last evaluation against its own before training; a family of its own for Holm."""
    pairs = sorted(runs.table["pair"].unique()) if pairs is None else pairs
    found = [_gain(runs, result_dir, pair, arm, metric) for pair in pairs for arm in arms]
    return _judged(found, runs, metric, alpha)


def _one_log(c: Comparison) -> Comparison:
    """The comparison of an arm with one whose logs it repeats: there is nothing to compare."""
    why = "their logs are identical but for timings: what they declare differently trained nothing"
    sentence = f"{c.pair}: {arm_label(c.arm)} against {arm_label(c.base_line)} cannot be told: {why}."
    return replace(c, result=None, noise=None, sentence=sentence, why_not=why)


def _led(found: Sequence[Comparison], runs: Runs) -> dict[int, int]:
    """Place of each comparison that could be tested -> place of the one that stands for it in Holm's family.

    Comparisons of arms with identical logs are one: the one with the most seeds, then the first, stands for the others.
    """
    together: dict[tuple, list[int]] = {}
    for place, c in enumerate(found):
        if c.result is not None:
            key = (c.pair, runs.stands_for(c.pair, c.arm), runs.stands_for(c.pair, c.base_line))
            together.setdefault(key, []).append(place)
    leaders = {key: max(places, key=lambda place: (len(found[place].seeds), -place)) for key, places in together.items()}
    return {place: leaders[key] for key, places in together.items() for place in places}


def _judged(found: list[Comparison], runs: Runs, metric: str, alpha: float) -> list[Comparison]:
    """The comparisons with Holm's p over those that could be tested, identical logs counted once, and their sentences."""
    found = [
        _one_log(c) if runs.stands_for(c.pair, c.arm) == runs.stands_for(c.pair, c.base_line) else c for c in found
    ]
    led = _led(found, runs)
    leaders = sorted(set(led.values()))
    adjusted = dict(zip(leaders, stats.holm([found[i].result.p for i in leaders]).tolist()))
    judged = list(found)
    for i in leaders:
        arms = tuple(dict.fromkeys(found[j].arm for j in led if led[j] == i and found[j].arm != found[i].arm))
        one = replace(found[i], adjusted_p=adjusted[i], family=len(leaders), repeated_by=arms)
        judged[i] = replace(one, sentence=sentence_of(one, metric, alpha))
    for i in led.keys() - set(leaders):
        leader = judged[led[i]]
        own = {"arm": found[i].arm, "base_line": found[i].base_line, "counted_as": (leader.arm, leader.base_line)}
        one = replace(leader, **own, repeated_by=())
        judged[i] = replace(one, sentence=sentence_of(one, metric, alpha))
    return judged


def verdict(runs: Runs, arm: str, pair: str, base_line: str | None = None, **options) -> str:
    """The sentence of one arm against the base line on one pair; ``options`` as for ``verdicts``."""
    return verdicts(runs, [arm], base_line, [pair], **options)[0].sentence
