"""`--tune KEY=value,...`: every arm at each value of a setting, compared at the value that the validation split chooses.

A design choice changes the scale of the gradient, and with it the learning rate that suits: arms at one learning rate may
differ because it is one arm's best and not the other's. The choice is by the mean over seeds of the last validation Pass@1,
the first of equal values; the test split is never looked at for it. The same runs are chosen from and compared, so that
a chosen value's luck on validation goes with its luck on test: with as many values for every arm that favours none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from Verl.design.arms import Factor
from Verl.errors import UserError
from Verl.study import vary
from Verl.study.design_text import table
from Verl.trainer.best import VALIDATION
from Verl.wording import duration

_COSTS = {"steps": "step", "tokens": "ledger/total_tokens_generated", "hours": "ledger/total_hours"}


@dataclass(frozen=True)
class Choice:
    """Of one arm: the value and arm chosen, and the validation Pass@1 of each value."""

    value: str
    arm: str
    scores: Mapping[str, float]


def with_values(request: vary.StudyRequest, maker: vary.ArmMaker, one: vary.Varied) -> vary.StudyRequest:
    """Every arm at each value, in the place of the arms.

    Raises:
        UserError: a value that an arm cannot have, or a single value.
    """
    if len(one.levels) < 2:
        raise UserError(f"--tune {one.key}={','.join(one.levels)}: there is nothing to choose from: give two values or more")
    runs, at_values = [], {}
    for arm in request.arms:
        config = maker.prepared(arm.start, arm.levels).config
        if config.evaluation.val_freq <= 0 or config.evaluation.val_questions == 0:
            raise UserError("--tune chooses by the validation split: leave evaluation.val_freq and evaluation.val_questions")
        at = {value: maker.arm(arm.start, [*arm.levels, f"{one.key}={value}"]) for value in one.levels}
        at_values[arm.name] = {value: of_value.name for value, of_value in at.items()}
        runs += [of_value for of_value in at.values() if of_value not in runs]
    names = [run.name for run in runs]
    first = tuple(dict.fromkeys(at_values[request.reference].values()))
    tuning = Factor(f"tune_{one.key}", one.key, (one.key,), arms=first, reference=first[0])
    study = replace(request.study, arms={**request.study.arms, **{run.name: run.declared for run in runs}},
                    factors={**request.study.factors, tuning.name: tuning})  # fmt: skip
    tuned = vary.Tuned(one.key, at_values)
    return replace(request, study=study, pair=request.pair.with_arms(names), arms=tuple(runs), tuned=tuned)


def choose(tuned: vary.Tuned, rows: pd.DataFrame, arm_of: Mapping[str, str]) -> dict[str, Choice]:
    """Arm -> its best value on the validation split, of those arms that were evaluated at every value.

    Args:
        rows: the study's runs, a row per run and step. arm_of: declared name -> the arm's name in them.
    """
    chosen = {}
    for arm, at in tuned.at_values.items():
        scores = {value: last_validation(rows[rows["arm"] == arm_of[name]]) for value, name in at.items()}
        if all(np.isfinite(score) for score in scores.values()):
            best = max(scores, key=scores.__getitem__)  # the first of equal ones
            chosen[arm] = Choice(best, at[best], scores)
    return chosen


def last_validation(rows: pd.DataFrame) -> float:
    """Mean over seeds of one arm's last validation Pass@1; NaN where there is none."""
    if VALIDATION not in rows:
        return float("nan")
    rows = rows[rows[VALIDATION].notna()]
    return float(rows.sort_values("step").groupby("seed")[VALIDATION].last().mean()) if len(rows) else float("nan")


def cost(rows: pd.DataFrame) -> str:
    """Runs, steps, generated tokens and hours of some runs, in words; evaluation is in none of them."""
    ends = rows.groupby("run")[[column for column in _COSTS.values() if column in rows]].max().sum()
    tokens, hours = (ends.get(_COSTS[name], float("nan")) for name in ("tokens", "hours"))
    spent = "unknown time" if np.isnan(hours) else duration(3600 * hours)
    words = "an unknown number of" if np.isnan(tokens) else f"{tokens:,.0f}"
    return f"{rows['run'].nunique()} runs, {ends.get('step', 0):,.0f} steps, {words} generated tokens, {spent} of training"


def lines(tuned: vary.Tuned, chosen: Mapping[str, Choice], rows: pd.DataFrame, arm_of: Mapping[str, str]) -> list[str]:
    """What was chosen, by what, and what the choosing cost."""
    values = list(dict.fromkeys(value for at in tuned.at_values.values() for value in at))
    head = ("arm", *(f"{tuned.key.rpartition('.')[2]} {value}" for value in values), "chosen")
    said = [f"tuning of {tuned.key}: each arm's best by validation Pass@1, mean over seeds of the last evaluation, not by test"]
    said += table(head, [(arm, *(f"{one.scores[value]:.3f}" for value in values), one.value) for arm, one in chosen.items()])
    left_out = [arm for arm in tuned.at_values if arm not in chosen]
    said += [f"{arm} can't be chosen for: not every value of it has a validation score" for arm in left_out]
    edges = [arm for arm, one in chosen.items() if one.value in _ends(values)]
    if edges and len(values) > 2:
        said.append(f"chosen at an end of the values, so that a better one may lie beyond: {', '.join(edges)}")
    compared = rows[rows["arm"].isin({arm_of[one.arm] for one in chosen.values()})]
    only = rows[~rows["run"].isin(compared["run"])]
    return [*said, f"the tuning cost {cost(rows)}, all values together; {_beside(only)}"]


def _beside(rows: pd.DataFrame) -> str:
    return f"of these {cost(rows)} for values that were not chosen" if len(rows) else "every run is compared"


def _ends(values: Sequence[str]) -> set[str]:
    """The smallest and the largest value, if they are numbers."""
    try:
        ordered = sorted(values, key=float)
    except ValueError:
        return set()
    return {ordered[0], ordered[-1]}
