"""From responses to numbers: avg@k, unbiased pass@k, maj@k and greedy accuracy, one value per question each.

Shapes: `_Q` questions, in the order of their first response. A metric's estimate is the mean over questions, its
interval a bootstrap over questions: it says what other questions would give, not what another training seed would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from Verl.evaluation.answers import voted_answer
from Verl.evaluation.queries import Key
from Verl.reward.score import has_lenient_rule
from Verl.reward.sources import KNOWN_DATA_SOURCES
from Verl.statistics import questions as stats
from Verl.wording import pass_at_1

_RULE_WORDS = {
    "strict": "strict rule",
    "lenient": "lenient rule",
    "flexible": "flexible rule",
    "format": "format alone, right or wrong",
}
RULES = tuple(_RULE_WORDS)

Row = dict[str, Any]  # one response, with the columns of store.SCHEMA (its tokens not needed)


@dataclass(frozen=True)
class Metric:
    """One number of an evaluation.

    Args:
        name: "avg@8", "pass@4", "maj@8" or "greedy".
        rule: one of RULES.
        label: what the number is, in words.
        keys_Q: the questions.
        values_Q: one value per question, in [0, 1].
    """

    name: str
    rule: str
    label: str
    keys_Q: list[Key]
    values_Q: np.ndarray

    def interval(self) -> stats.Interval:
        return stats.bootstrap_interval(self.values_Q)

    def as_dict(self) -> dict[str, Any]:
        interval = self.interval()
        return {
            "name": self.name,
            "rule": self.rule,
            "label": self.label,
            "estimate": interval.estimate,
            "low": interval.low,
            "high": interval.high,
            "questions": len(self.keys_Q),
        }


def pass_ks(samples: int) -> list[int]:
    """The k of pass@k that are shown: powers of two above 1, and the number of samples."""
    powers = [2**exponent for exponent in range(1, samples.bit_length()) if 2**exponent < samples]
    return [*powers, samples] if samples > 1 else []


def all_metrics(rows: Iterable[Row], temperature: float) -> list[Metric]:
    """Every metric that the responses allow, sampled ones first.

    Raises:
        ValueError: questions with different numbers of samples (a file that isn't whole).
    """
    rows = list(rows)
    rules = _rules_of(rows)
    sampled, greedy = _by_question(r for r in rows if not r["greedy"]), _by_question(r for r in rows if r["greedy"])
    metrics: list[Metric] = []
    if sampled:
        metrics += _sampled_metrics(sampled, temperature, rules)
    if greedy:
        for rule in rules:
            label = f"Greedy, one answer at temperature 0, {_RULE_WORDS[rule]}"
            metrics.append(_metric("greedy", rule, label, greedy, partial(average, rule=rule)))
    return metrics


def _rules_of(rows: Sequence[Row]) -> list[str]:
    """RULES without the lenient one where it says nothing of its own: off MATH, and where a file has no such score. The
    strict one alone where a function of the user's scores: it has one score."""
    if any(row["data_source"] not in KNOWN_DATA_SOURCES for row in rows):
        return ["strict"]
    lenient = any(has_lenient_rule(row["data_source"]) for row in rows) and all(
        row.get("lenient") is not None for row in rows
    )
    return [rule for rule in RULES if rule != "lenient" or lenient]


def _by_question(rows: Iterable[Row]) -> dict[Key, list[Row]]:
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault((row["data_source"], row["index"]), []).append(row)
    return groups


def _sampled_metrics(groups: dict[Key, list[Row]], temperature: float, rules: Sequence[str]) -> list[Metric]:
    counts = {len(group) for group in groups.values()}
    if len(counts) > 1:
        raise ValueError(f"the questions have {min(counts)} to {max(counts)} samples: they must have equally many")
    n = counts.pop()
    known = all(source in KNOWN_DATA_SOURCES for source, _ in groups)  # else where its answer stands is unknown
    metrics = []
    for rule in rules:
        how = f"at temperature {temperature}, {_RULE_WORDS[rule]}"
        label = ("" if n == 1 else f"avg@{n}: ") + f"{pass_at_1(n, temperature)}, {_RULE_WORDS[rule]}"
        metrics.append(_metric(f"avg@{n}", rule, label, groups, partial(average, rule=rule)))
        for k in pass_ks(n):
            label = f"pass@{k}, unbiased, from {n} samples {how}"
            metrics.append(_metric(f"pass@{k}", rule, label, groups, partial(any_of, rule=rule, k=k)))
        if n > 1 and rule != "format" and known:  # a format has no answer to vote for
            label = f"maj@{n}, the majority of {n} samples {how}"
            metrics.append(_metric(f"maj@{n}", rule, label, groups, partial(majority, rule=rule)))
    return metrics


def average(group: Sequence[Row], rule: str) -> float:
    """avg@k of one question: the mean score of its samples (of a greedy answer: its score)."""
    return float(np.mean([row[rule] for row in group]))


def any_of(group: Sequence[Row], rule: str, k: int) -> float:
    """Unbiased pass@k of one question from all of its samples."""
    return stats.pass_at_k(len(group), sum(row[rule] > 0 for row in group), k)


def majority(group: Sequence[Row], rule: str) -> float:
    """maj@k of one question over all of its k samples; see stats.maj_at_k for ties and unreadable answers."""
    correct = [bool(row[rule]) for row in group]
    answers = [
        voted_answer(row["data_source"], row["text"], rule, right, bool(row["format"]))
        for row, right in zip(group, correct)
    ]
    return stats.maj_at_k(answers, correct)


def _metric(
    name: str, rule: str, label: str, groups: dict[Key, list[Row]], value: Callable[[list[Row]], float]
) -> Metric:
    return Metric(name, rule, label, list(groups), np.array([float(value(group)) for group in groups.values()]))
