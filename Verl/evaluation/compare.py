"""Two models on the same questions: is the difference more than the luck of the questions?

0/1 outcomes (one sample per question, or greedy) are tested with the exact McNemar test, averages over several samples
with a paired bootstrap; the interval of the difference is a paired bootstrap in both cases. Neither says anything about
another training seed (Verl.statistics.seeds does).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from Verl.errors import UserError
from Verl.evaluation.metrics import Metric, Row, all_metrics
from Verl.evaluation.queries import Key
from Verl.evaluation.settings import EvalSettings
from Verl.statistics import questions as stats


class ModelComparison(NamedTuple):
    """One metric of two evaluations on their common questions; `difference` is this one minus the other."""

    name: str
    rule: str
    label: str
    questions: int
    this: float
    other: float
    difference: float
    low: float
    high: float
    p: float
    test: str


class Other:
    """The evaluation to compare with."""

    def __init__(self, name: str, evaluation: dict[str, Any], rows: Sequence[Row]):
        self.name, self.evaluation = name, evaluation
        self.truths = {(row["data_source"], row["index"]): row["ground_truth"] for row in rows}
        self.metrics = all_metrics(rows, evaluation["settings"]["temperature"])

    def check(self, settings: EvalSettings, truths: dict[Key, str]) -> None:
        """Raises UserError unless it was decoded alike and shares questions."""
        theirs = self.evaluation["settings"]
        for name, value in settings.decoding().items():
            if theirs[name] != value:
                raise UserError(
                    f"--against {self.name} was made with --{name.replace('_', '-')} {theirs[name]}, this one with {value}: "
                    "two models can only be compared when they were decoded alike"
                )
        common = set(truths) & set(self.truths)
        if len(common) < 2:
            raise UserError(
                f"--against {self.name} shares {len(common)} question(s) with --data: give the same set to both"
            )
        changed = sorted(key for key in common if truths[key] != self.truths[key])
        if changed:
            raise UserError(
                f"--against {self.name} has another true answer for question {changed[0][1]} of {changed[0][0]}: "
                "it was made on another version of the set"
            )


def compare(ours: Sequence[Metric], others: Sequence[Metric]) -> list[ModelComparison]:
    """Every metric that both have, on the questions that both have."""
    by_name = {(metric.name, metric.rule): metric for metric in others}
    pairs = [(metric, by_name[metric.name, metric.rule]) for metric in ours if (metric.name, metric.rule) in by_name]
    return [_compare(this, other) for this, other in pairs]


def _compare(this: Metric, other: Metric) -> ModelComparison:
    values = dict(zip(other.keys_Q, other.values_Q, strict=True))
    common = [place for place, key in enumerate(this.keys_Q) if key in values]
    a_Q = this.values_Q[common]
    b_Q = np.array([values[this.keys_Q[place]] for place in common])
    result = stats.paired_bootstrap(a_Q, b_Q)
    p, test = result.p, "paired bootstrap"
    if np.isin(a_Q, (0.0, 1.0)).all() and np.isin(b_Q, (0.0, 1.0)).all() and _is_one_answer(this.name):
        p, test = stats.mcnemar_exact(a_Q, b_Q), "exact McNemar"
    return ModelComparison(
        name=this.name,
        rule=this.rule,
        label=this.label,
        questions=len(common),
        this=float(a_Q.mean()),
        other=float(b_Q.mean()),
        difference=result.difference,
        low=result.low,
        high=result.high,
        p=p,
        test=test,
    )


def _is_one_answer(name: str) -> bool:
    return name in ("avg@1", "greedy")
