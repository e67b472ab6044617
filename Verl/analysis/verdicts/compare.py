"""The comparisons of a study in words and numbers: how far an arm is from its reference, and what follows.

The verdict of each (better, worse, equivalent, undecided) comes from ``judge``, over all arms that the study compares
with the same reference. Beside it stands, as a check, the plain paired t test with Holm's correction, which takes each
arm's noise from its own seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from Verl.analysis import stats
from Verl.analysis.runs.run_file import LEDGER, TEST, listed
from Verl.analysis.runs.table import Runs
from Verl.analysis.style import arm_label
from Verl.analysis.verdicts.comparison import Comparison
from Verl.analysis.verdicts.factors import family_of, pairs_of
from Verl.analysis.verdicts.judge import MARGIN, Key, Verdict, groups_of, judge, table_of
from Verl.analysis.verdicts.pairing import START, Curves, Pairing, meeting_point, pairing_at, with_answers
from Verl.analysis.verdicts.text import no_run, number, p_text, point, sentence_of
from Verl.design.declared import declared


def _plain_t(paired: Pairing | None) -> stats.Difference | None:
    """The check: over seeds and questions where these are known, else over the averages; None with one paired seed."""
    if paired is None or len(paired.seeds) < 2:
        return None
    grids, seeds = paired.grids(), paired.seeds
    if grids is None:
        return stats.paired_seeds([paired.ours[s] for s in seeds], [paired.theirs[s] for s in seeds])
    return stats.paired_two_way(*grids)


def _sizes(paired: Pairing) -> dict:
    if paired.answers is None:
        return {"questions": 0}
    samples = min(frame.shape[1] for side in paired.answers for frame in side.values())
    return {"questions": len(paired.questions), "samples": samples}


def _over_questions_only(grids) -> str:
    """What one seed's answers say: of these two models, not of the arms."""
    if grids is None:
        return ""
    a_Q, b_Q = grids[0][0], grids[1][0]
    if not {*a_Q, *b_Q} <= {0.0, 1.0}:
        return ""
    p = p_text(stats.mcnemar_exact(a_Q, b_Q))
    return f" (these two models differ over their {len(a_Q)} questions with exact McNemar p {p}; other seeds may not)"


class _Open:
    """Comparisons before their families are known: each with what it can be made from, or None."""

    def __init__(self, runs: Runs, result_dir: Path | str | None, axis: str, metric: str):
        self.result_dir, self.axis, self.metric = result_dir, axis, metric
        self.known = Curves(runs, axis, metric)

    def compare(self, pair: str, arm: str, base: str) -> tuple[Comparison, Pairing | None]:
        if base == START:
            return self._gain(pair, arm)
        ours, theirs = (self.known.of(pair, name) for name in (arm, base))
        for name, of_arm in ((arm, ours), (base, theirs)):
            if not of_arm:
                why = f"no run of {name} has {self.metric}" if self.known.has_runs(pair, name) else no_run(name)
                return self._cannot(pair, arm, base, why), None
            if (different := self.known.configurations(pair, name)) > 1:
                return self._cannot(pair, arm, base, f"the runs of {name} have {different} different configurations"), None
        at = meeting_point(ours, theirs, self.axis)
        if at is None or at <= 0:
            return self._cannot(pair, arm, base, "the two were never evaluated at the same step of training"), None
        paired = pairing_at(pair, arm, base, at, self.axis, ours, theirs)
        if self.axis == "steps":
            paired = with_answers(paired, self.known, self.result_dir)
        notes = (f"not paired at this point: seed {listed(paired.not_paired)}",) if paired.not_paired else ()
        if len(paired.seeds) < 2:
            seen = ""
            if paired.seeds:
                one = paired.seeds[0]
                seen = f", where {number(paired.ours[one] - paired.theirs[one])} was seen"
                seen += _over_questions_only(paired.grids())
            why = f"{len(paired.seeds)} paired seed(s) at {point(self.axis, at)}{seen}, and noise over seeds needs two"
            one = self._cannot(pair, arm, base, why, at, paired.seeds)
            return replace(one, notes=notes, **_sizes(paired)), paired if paired.seeds else None
        fields = {"result": None, "adjusted_p": None, "sentence": "", "notes": notes, **_sizes(paired)}
        return Comparison(pair, arm, base, self.axis, at, tuple(paired.seeds), **fields), paired

    def _cannot(self, pair: str, arm: str, base: str, why: str, at: float | None = None, seeds: Sequence[int] = ()):
        sentence = f"{pair}: {arm_label(arm)} against {arm_label(base)} cannot be compared: {why}."
        return Comparison(pair, arm, base, self.axis, at, tuple(seeds), 0, None, None, sentence, why_not=why)

    def _gain(self, pair: str, arm: str) -> tuple[Comparison, Pairing | None]:
        """An arm's last evaluation against its own evaluation before training."""
        found = self.known.of(pair, arm)
        last = max((curve.index[-1] for curve in found.values()), default=0)
        both = {seed: curve for seed, curve in found.items() if 0 in curve.index and last in curve.index}
        if last == 0 or len(both) < 2:
            seen = (
                f"{len(both)} seed(s) evaluated before training and at step {int(last)}"
                if last
                else "no evaluation after step 0"
                if found
                else no_run(arm)
            )
            sentence = f"{pair}: whether {arm_label(arm)} improves on its start is unknown: {seen}."
            at = float(last)
            return Comparison(pair, arm, START, "steps", at, tuple(both), 0, None, None, sentence, why_not=seen), None
        ours, theirs = ({seed: float(curve[step]) for seed, curve in both.items()} for step in (last, 0))
        paired = with_answers(Pairing(pair, arm, START, float(last), ours, theirs), self.known, self.result_dir)
        fields = {"result": None, "adjusted_p": None, "sentence": "", **_sizes(paired)}
        return Comparison(pair, arm, START, "steps", float(last), tuple(paired.seeds), **fields), paired


def compare(
    runs: Runs,
    family: Sequence[Key],
    result_dir: Path | str | None = None,
    axis: str = "steps",
    metric: str = TEST,
    alpha: float = 0.05,
    margin: float = MARGIN,
    judged: Mapping[Key, Verdict] | None = None,
) -> list[Comparison]:
    """The comparisons (pair, arm, what it is compared with) of one family.

    Args:
        runs: from ``load_runs``.
        result_dir: where the per-question evaluations lie; None or missing files compare the seeds' averages.
        axis: "steps" compares at the last common step; "queries", "responses", "tokens", "gradient_samples" or
            "hours" at the last common budget, between evaluations.
        margin: the largest difference that does not matter.
        judged: verdicts of a larger family (``study_verdicts``); without it ``family`` is the whole.
    Returns:
        Comparisons in the given order. Those without a result are in no family, and those of arms with identical
        logs are in it once.
    """
    if axis != "steps" and axis not in LEDGER:
        raise ValueError(f"unknown axis {axis!r}; known: steps, {', '.join(LEDGER)}")
    opened = _Open(runs, result_dir, axis, metric)
    found = [opened.compare(*one) for one in family]
    if judged is None:
        judged = _judged(found, runs, alpha, margin)
    checked = [replace(one, result=_plain_t(paired)) for one, paired in found]
    return _finished(checked, judged, runs, metric, alpha)


def _leader_key(c: Comparison, runs: Runs) -> Key:
    """The same for comparisons of arms with identical logs."""
    return c.pair, runs.stands_for(c.pair, c.arm), runs.stands_for(c.pair, c.base_line)


def _judged(found, runs: Runs, alpha: float, margin: float) -> dict[Key, Verdict]:
    """The verdicts, with those of identical logs under each of their names.

    Args:
        found: (comparison, its pairing or None).
    """
    groups: dict[Key, list[tuple[Comparison, Pairing]]] = {}
    for one, paired in found:
        key = _leader_key(one, runs)
        if paired is not None and key[1] != key[2]:
            groups.setdefault(key, []).append((one, paired))
    leading = [max(group, key=lambda two: len(two[0].seeds)) for group in groups.values()]
    verdicts_of = judge([paired for _, paired in leading], margin=margin, alpha=alpha)
    shared = {}
    for group, (leader, _) in zip(groups.values(), leading):
        verdict_of = verdicts_of.get((leader.pair, leader.arm, leader.base_line))
        if verdict_of is not None:
            shared |= {(one.pair, one.arm, one.base_line): verdict_of for one, _ in group}
    return shared


def study_family(table: pd.DataFrame, base_line: str | None = None) -> list[Key]:
    """All comparisons that a study makes: what its questions ask, and every arm with the base line and with its start."""
    base_line = base_line or declared().base_line
    found: dict[Key, None] = {}
    for factor in declared().factors.values():
        found |= dict.fromkeys(family_of(factor, pairs_of(factor, table)))
    for (pair, arm), _ in table.groupby(["pair", "arm"]):
        if arm != base_line:
            found[pair, arm, base_line] = None
        found[pair, arm, START] = None
    return list(found)


def study_verdicts(
    runs: Runs,
    result_dir: Path | str | None = None,
    axis: str = "steps",
    metric: str = TEST,
    alpha: float = 0.05,
    margin: float = MARGIN,
    base_line: str | None = None,
) -> dict[Key, Verdict]:
    """The verdict on every comparison of a study: one family per pair and reference, whatever page asks for it."""
    opened = _Open(runs, result_dir, axis, metric)
    return _judged([opened.compare(*one) for one in study_family(runs.table, base_line)], runs, alpha, margin)


def shared_scores(
    runs: Runs,
    result_dir: Path | str,
    pair: str,
    arms: Sequence[str],
    reference: str,
    metric: str = TEST,
) -> dict[str, np.ndarray] | None:
    """The table that ``compare_with`` is given for arms that meet the reference at the same step and questions: the
    largest such group, arm -> (seeds, questions, samples). None where no arm has stored evaluations in common with it."""
    opened = _Open(runs, result_dir, "steps", metric)
    found = [opened.compare(pair, arm, reference) for arm in arms if arm != reference]
    pairings = [paired for one, paired in found if paired is not None and paired.answers and not _same_log(one, runs)]
    groups = groups_of(pairings)
    return table_of(max(groups, key=len), reference) if groups else None


def verdicts(
    runs: Runs,
    arms: Sequence[str],
    base_line: str | None = None,
    pairs: Sequence[str] | None = None,
    result_dir: Path | str | None = None,
    axis: str = "steps",
    metric: str = TEST,
    alpha: float = 0.05,
    **options,
) -> list[Comparison]:
    """Every arm against the base line (by default the study's) on every pair, as one family; itself is skipped."""
    base_line = base_line or declared().base_line
    pairs = sorted(runs.table["pair"].unique()) if pairs is None else pairs
    family = [(pair, arm, base_line) for pair in pairs for arm in arms if arm != base_line]
    return compare(runs, family, result_dir, axis, metric, alpha, **options)


def gains(
    runs: Runs,
    arms: Sequence[str],
    pairs: Sequence[str] | None = None,
    result_dir: Path | str | None = None,
    metric: str = TEST,
    alpha: float = 0.05,
    **options,
) -> list[Comparison]:
    """Does an arm improve at all? Its last evaluation against its own before training; families of their own."""
    pairs = sorted(runs.table["pair"].unique()) if pairs is None else pairs
    family = [(pair, arm, START) for pair in pairs for arm in arms]
    return compare(runs, family, result_dir, "steps", metric, alpha, **options)


def _one_log(c: Comparison) -> Comparison:
    """The comparison of an arm with one whose logs it repeats: there is nothing to compare."""
    why = "their logs are identical but for timings: what they declare differently trained nothing"
    sentence = f"{c.pair}: {arm_label(c.arm)} against {arm_label(c.base_line)} cannot be compared: {why}."
    return replace(c, result=None, judged=None, sentence=sentence, why_not=why)


def _led(found: Sequence[Comparison], runs: Runs) -> dict[int, int]:
    """Place of each comparison that could be tested -> place of the one that stands for it in Holm's family.

    Comparisons of arms with identical logs are one: the one with the most seeds, then the first, stands for the others.
    """
    together: dict[Key, list[int]] = {}
    for place, c in enumerate(found):
        if c.result is not None or c.known:
            together.setdefault(_leader_key(c, runs), []).append(place)
    leaders = {key: max(places, key=lambda place: (len(found[place].seeds), -place)) for key, places in together.items()}
    return {place: leaders[key] for key, places in together.items() for place in places}


def _finished(
    found: list[Comparison], judged: Mapping[Key, Verdict], runs: Runs, metric: str, alpha: float
) -> list[Comparison]:
    """The comparisons with verdict, Holm's p of the plain t (identical logs counted once) and their sentences."""
    found = [replace(c, judged=judged.get((c.pair, c.arm, c.base_line))) for c in found]
    found = [_one_log(c) if _same_log(c, runs) else c for c in found]
    led = _led(found, runs)
    leaders = sorted(set(led.values()))
    tested = [i for i in leaders if found[i].result is not None]
    adjusted = dict(zip(tested, stats.holm([found[i].result.p for i in tested]).tolist()))
    done = list(found)
    for i in leaders:
        arms = tuple(dict.fromkeys(found[j].arm for j in led if led[j] == i and found[j].arm != found[i].arm))
        one = replace(found[i], adjusted_p=adjusted.get(i), family=len(tested), repeated_by=arms)
        done[i] = replace(one, sentence=sentence_of(one, metric, alpha))
    for i in led.keys() - set(leaders):
        leader = done[led[i]]
        own = {"arm": found[i].arm, "base_line": found[i].base_line, "counted_as": (leader.arm, leader.base_line)}
        one = replace(leader, **own, repeated_by=())
        done[i] = replace(one, sentence=sentence_of(one, metric, alpha))
    return done


def _same_log(c: Comparison, runs: Runs) -> bool:
    return runs.stands_for(c.pair, c.arm) == runs.stands_for(c.pair, c.base_line)


def verdict(runs: Runs, arm: str, pair: str, base_line: str | None = None, **options) -> str:
    """The sentence of one arm against the base line on one pair; ``options`` as for ``verdicts``."""
    return verdicts(runs, [arm], base_line, [pair], **options)[0].sentence
