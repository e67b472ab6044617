"""Does a factor help learning or generalisation? Every arm's Pass@1 on train, and what is left of it on test.

Learning: the difference of train Pass@1, paired by seed and, where the answers are stored, by question. Generalisation: the
difference of (test minus train), paired by seed; an arm that learns the training questions alone gains on train and loses here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from Verl.analysis.runs.run_file import LEDGER
from Verl.analysis.runs.table import Runs
from Verl.analysis.verdicts.compare import compare, study_family, study_verdicts
from Verl.analysis.verdicts.comparison import Comparison
from Verl.analysis.verdicts.judge import MARGIN, Key
from Verl.analysis.verdicts.pairing import START

RULES = ("pass@1", "flexible", "format")
_LEARNS = {"better": "learns more", "worse": "learns less", "equivalent": "learns as much"}
_GENERALISES = {"better": "generalises better", "worse": "generalises worse", "equivalent": "generalises alike"}


@dataclass(frozen=True)
class TrainTest:
    """One comparison on train, and of what test falls short of train."""

    train: Comparison
    gap: Comparison

    @property
    def words(self) -> str:
        """The verdict: what is shown of learning and of generalisation."""
        if self.train.verdict is None and self.gap.verdict is None:
            return f"cannot be compared: {self.gap.why_not or self.train.why_not}"
        known = [(self.train.verdict, _LEARNS), (self.gap.verdict, _GENERALISES)]
        return ", ".join(words[verdict] for verdict, words in known if verdict in words) or "undecided"


def metrics_of(rule: str) -> tuple[str, str, str]:
    """The metrics of a rule on train, on test, and of their difference (a column that ``with_gap`` adds)."""
    return f"eval/train/{rule}", f"eval/test/{rule}", f"eval/test minus train/{rule}"


def rule_of(metric: str) -> str | None:
    """The rule of a metric that has a counterpart on the other split: ``eval/test/flexible`` has; None for all others."""
    parts = metric.split("/")
    return parts[2] if len(parts) == 3 and parts[0] == "eval" and parts[1] in ("train", "test") and parts[2] in RULES else None


def with_gap(runs: Runs, rule: str) -> Runs:
    """The runs with test minus train at every step that has both."""
    train, test, gap = metrics_of(rule)
    if train not in runs.table or test not in runs.table:
        return runs
    kept = ["run", "pair", "arm", "seed", "config_hash", "step", train, test, *(c for c in LEDGER.values() if c in runs.table)]
    table = runs.table[kept].assign(**{gap: runs.table[test] - runs.table[train]})
    return runs._replace(table=table)


def train_and_test(
    runs: Runs, result_dir: Path | str | None = None, rule: str = "pass@1", margin: float = MARGIN
) -> Mapping[Key, TrainTest]:
    """Both verdicts on every comparison of a study, but those of arms with their own start."""
    train, _, gap = metrics_of(rule)
    runs = with_gap(runs, rule)
    family = [key for key in study_family(runs.table) if key[2] != START]
    found = []
    for metric, folder in ((train, result_dir), (gap, None)):
        judged = study_verdicts(runs, folder, metric=metric, margin=margin)
        found.append(compare(runs, family, folder, metric=metric, margin=margin, judged=judged))
    return {key: TrainTest(*two) for key, *two in zip(family, *found)}
