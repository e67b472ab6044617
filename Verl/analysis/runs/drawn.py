"""Whether a training metric of two arms is of the same thing.

`train/...` is over the responses of a step. It tells one policy from another where both answer the same questions in the same
way: not where an arm samples at another temperature, draws from a part of the questions, or throws away queries that are
always answered. (Evaluations are the same for all arms; `eval/train/...` is one.)
"""

from __future__ import annotations

from pathlib import Path

from Verl.analysis.runs.configs import first_runs, flat_config
from Verl.analysis.runs.table import Runs

TRAIN_PASS, DRAWN_PASS = "train/pass@1", "train/drawn_pass@1"
_SAMPLING = tuple(f"actor_rollout_ref.rollout.{name}" for name in ("temperature", "top_p", "top_k"))
_DRAWING = (*_SAMPLING, "data.train_max_samples")
_FILTER = "algorithm.filter_groups.enable"


def over_all_drawn(runs: Runs) -> Runs:
    """The runs with `train/pass@1` over all that a step drew, where dynamic sampling logs that besides what it kept."""
    if DRAWN_PASS not in runs.table:
        return runs
    whole = runs.table[DRAWN_PASS]
    kept = runs.table.get(TRAIN_PASS, whole)
    return runs._replace(table=runs.table.assign(**{TRAIN_PASS: whole.where(whole.notna(), kept)}))


def why_unlike(runs: Runs, result_dir: Path, key: tuple[str, str, str], metric: str, whole: bool = False) -> str:
    """Why two arms cannot be compared by a metric, as the configs of their first runs have it; empty if they can.

    ``key``: pair, arm and reference. ``whole``: the metric is over all that was drawn (``over_all_drawn``).
    """
    pair, arm, base = key
    if not metric.startswith("train/"):
        return ""
    names = first_runs(runs.table, pair)
    configs = [flat_config(result_dir / names[one] / "config.yaml") for one in (arm, base) if one in names]
    if len(configs) < 2 or None in configs:
        return ""
    for setting in _DRAWING if whole else (*_DRAWING, _FILTER):
        ours, theirs = (config.get(setting) for config in configs)
        if ours != theirs:
            return f"{metric} is of what an arm draws, and {setting} is {ours} of {arm} and {theirs} of {base}"
    return ""
