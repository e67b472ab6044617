"""Seeds until it is decided: after each further seed every arm is judged, and only undecided ones go on.

The rule is that of ``Verl.statistics.sequential`` (docs/statistics.md): the looks are fixed before the first one, and the
chance of any false verdict holds over all of them. Nothing is remembered between looks but the runs' own logs: a study
that was cut decides again what it had decided, and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from Verl.analysis.runs.run_file import TEST
from Verl.analysis.runs.table import Runs, load_runs
from Verl.analysis.verdicts.compare import shared_scores
from Verl.errors import UserError
from Verl.statistics.sequential import Decision, SeedPlan, decide


@dataclass(frozen=True)
class Rule:
    """What is fixed before the first look. ``seeds``: in the order in which they are added; ``first``: at the first look."""

    reference: str
    arms: tuple[str, ...]  # without the reference
    seeds: tuple[int, ...]
    first: int
    margin: float
    alpha: float = 0.05

    @property
    def plan(self) -> SeedPlan:
        looks = tuple(range(self.first, len(self.seeds) + 1))
        return SeedPlan(looks, len(self.arms), alpha=self.alpha, margin=self.margin)

    def seeds_of(self, count: int, decisions: Mapping[str, Decision]) -> dict[str, tuple[int, ...]]:
        """Arm -> the seeds that it has at the look after ``count`` seeds; stopped arms keep what they had."""
        stopped = {arm: one.seeds for arm, one in decisions.items() if one.stops}
        return {arm: self.seeds[: stopped.get(arm, count)] for arm in (self.reference, *self.arms)}


def rule_of(
    reference: str, arms: Sequence[str], first: Sequence[int], max_seeds: int, margin: float
) -> Rule:
    """The rule of a study that begins with some seeds and goes on with the next numbers.

    Raises:
        UserError: nothing to compare, or numbers of seeds that make no rule.
    """
    others = tuple(arm for arm in dict.fromkeys(arms) if arm != reference)
    first = list(dict.fromkeys(first))
    if reference not in arms:
        raise UserError(f"--until-decided compares with {reference}, which is not among the arms: add it, or give --against")
    if not others:
        raise UserError(f"--until-decided has nothing to compare with {reference}: give more arms")
    if len(first) < 2:
        raise UserError("--until-decided needs two seeds to begin with, or nothing is known of their noise: give --seeds 0 1")
    if max_seeds < len(first):
        raise UserError(f"--max-seeds {max_seeds} is less than the {len(first)} seeds of --seeds")
    further = range(max(first) + 1, max(first) + 1 + max_seeds - len(first))
    return Rule(reference, others, (*sorted(first), *further), len(first), margin)


def look(
    result_dir: Path, pair: str, rule: Rule, seeds_of: Mapping[str, Sequence[int]], earlier: Mapping[str, Decision]
) -> dict[str, Decision]:
    """Judge the study on the given seeds of each arm.

    Raises:
        UserError: an arm cannot be compared: another last step, other questions, no evaluation.
    """
    found = load_runs(result_dir, lambda metric: metric == TEST)
    table = found.table
    rows = zip(table["pair"], table["arm"], table["seed"])
    wanted = [one == pair and seed in seeds_of.get(arm, ()) for one, arm, seed in rows]
    runs = Runs(table[wanted], [])
    scores = shared_scores(runs, result_dir, pair, rule.arms, rule.reference) or {}
    missing = [arm for arm in rule.arms if arm not in scores]
    if missing:
        raise UserError(
            f"{missing[0]} can't be compared with {rule.reference}: both need evaluations of the same test questions at the "
            "same step (trainer.test_freq, --steps)"
        )
    return decide(scores, rule.reference, rule.plan, earlier)


def lines(count: int, decisions: Mapping[str, Decision]) -> list[str]:
    """What a look found, arm by arm."""
    going = [arm for arm, one in decisions.items() if not one.stops]
    head = f"look after {count} seeds: {len(decisions) - len(going)} of {len(decisions)} comparisons are closed"
    return [head, *(f"  {arm}: {one.reason}; {_numbers(one)}" for arm, one in decisions.items())]


def _numbers(one: Decision) -> str:
    found = one.comparison
    return f"difference {found.difference:+.3f}, {found.low:+.3f} to {found.high:+.3f} at this look's level"


def as_record(rule: Rule, decisions: Mapping[str, Decision]) -> dict[str, Any]:
    """The decisions as they stand in the study's table."""
    return {
        "reference": rule.reference, "looks": list(rule.plan.looks), "seeds": list(rule.seeds), "margin": rule.margin,
        "alpha": rule.alpha,
        "arms": {
            arm: {"verdict": one.verdict, "stops": one.stops, "seeds": one.seeds, "reason": one.reason,
                  "difference": one.comparison.difference, "low": one.comparison.low, "high": one.comparison.high}
            for arm, one in decisions.items()
        },
    }  # fmt: skip


def until_decided(
    rule: Rule,
    run: Callable[[Mapping[str, Sequence[int]], dict[str, Any]], bool],
    judge: Callable[[Mapping[str, Sequence[int]], Mapping[str, Decision]], dict[str, Decision]],
    say: Callable[[str], None],
    record: Callable[[dict[str, Any]], None],
) -> bool:
    """Looks until every comparison is closed; False if a run failed for good.

    Args:
        run: brings the given seeds of each arm to their end (finished runs cost nothing), given what is decided so far.
        judge: ``look`` on them. say: takes a line. record: takes the decisions for the table of states.
    """
    decisions: dict[str, Decision] = {}
    for count in rule.plan.looks:
        seeds_of = rule.seeds_of(count, decisions)
        if not run(seeds_of, as_record(rule, decisions)):
            return False
        decisions = judge(seeds_of, decisions)
        record(as_record(rule, decisions))
        for line in lines(count, decisions):
            say(line)
        if all(one.stops for one in decisions.values()):
            break
    return True
