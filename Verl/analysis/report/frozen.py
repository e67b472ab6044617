"""The report's part on a declared study: which verdicts were declared, how they ended, and what deviates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from Verl.analysis.runs import packed
from Verl.analysis.runs.run_file import TEST
from Verl.analysis.runs.table import Runs
from Verl.analysis.verdicts.compare import compare
from Verl.analysis.verdicts.comparison import Comparison
from Verl.design import freeze
from Verl.design.freeze import Frozen, Run
from Verl.errors import UserError


@dataclass(frozen=True)
class Declared:
    """A declaration held against the runs. ``decisions``: arm -> (verdict, reason) by its stopping rule, if it has one."""

    frozen: Frozen
    line: str
    comparisons: tuple[Comparison, ...]
    decisions: dict[str, tuple[str, str]]
    deviations: tuple[str, ...]

    def covers(self, one: Comparison) -> bool:
        """Whether a comparison was declared."""
        return one.pair == self.frozen.pair and one.base_line == self.frozen.reference and one.arm in self.frozen.compared


def _runs(runs: Runs, result_dir: Path, pair: str) -> list[Run]:
    found = []
    rows = runs.table[runs.table["pair"] == pair]
    for name, of_run in rows.groupby("run"):
        tested = of_run.loc[of_run[TEST].notna(), "step"] if TEST in of_run else of_run["step"].iloc[:0]
        first = of_run.iloc[0]
        last = int(tested.max()) if len(tested) else 0
        found.append(Run(first["arm"], int(first["seed"]), first["config_hash"], _code(result_dir / name), last))
    return found


def _code(folder: Path) -> str | None:
    """The version of the training code that a run says it was made with."""
    try:
        return json.loads(packed.read_text(folder / "run.json")).get("stands_on", {}).get("code")
    except (OSError, ValueError, AttributeError):
        return None


def _decisions(frozen: Frozen, result_dir: Path) -> dict[str, tuple[str, str]]:
    """What the stopping rule says of the logs, look by look, as far as they go."""
    from Verl.analysis.verdicts import deciding

    rule = deciding.rule_of(frozen.reference, list(frozen.arms), frozen.seeds, frozen.max_seeds, frozen.margin)
    decisions: dict = {}
    for count in rule.plan.looks:
        try:
            decisions = deciding.look(result_dir, frozen.pair, rule, rule.seeds_of(count, decisions), decisions)
        except (UserError, ValueError):  # the runs of this look are not there yet
            break
        if all(one.stops for one in decisions.values()):
            break
    return {arm: (one.verdict, one.reason) for arm, one in decisions.items()}


def declared_part(runs: Runs, result_dir: Path, margin: float, path: Path | None) -> Declared | None:
    """The declaration at ``path``, or in or beside the result folder, against the runs; None without one.

    Its verdicts are of the declared arms alone, on the declared seeds, with the declared margin: their own family.
    """
    path = path or freeze.beside(result_dir)
    if path is None:
        return None
    frozen = freeze.read(path)
    table = runs.table
    most = frozen.max_seeds or len(frozen.seeds)
    allowed = {*frozen.seeds, *range(max(frozen.seeds) + 1, max(frozen.seeds) + 1 + most - len(frozen.seeds))}
    kept = Runs(table[table["seed"].isin(allowed)], runs.problems, runs.broken, runs.same_as)
    family = [(frozen.pair, arm, frozen.reference) for arm in frozen.compared]
    found = compare(kept, family, result_dir, alpha=frozen.alpha, margin=frozen.margin)
    decisions = _decisions(frozen, result_dir) if frozen.max_seeds else {}
    deviating = freeze.deviations(frozen, _runs(runs, result_dir, frozen.pair), margin)
    return Declared(frozen, freeze.line(frozen), tuple(found), decisions, tuple(deviating))


def exploratory(found: Sequence[Comparison], part: Declared | None) -> int:
    """How many of a study's verdicts were not declared."""
    known = [one for one in found if one.verdict is not None and one.counted_as is None]
    return sum(part is None or not part.covers(one) for one in known)
