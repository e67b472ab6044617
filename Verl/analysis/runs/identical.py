"""Arms whose logs are identical: they declare a difference that trained nothing, and are one arm for every statistic.

Two arms have identical logs if, for every seed that both have, each metric that both log has the same value at the same
steps. Wall time, memory and machine load are left out. A metric that only one of them logs (the state of a reward history)
describes the arm and is left out too; a metric of training must be among the common ones, since two arms always share
their evaluation before training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from Verl.analysis.runs.run_file import listed
from Verl.trainer.run_log import TIMING_PREFIXES

Signature = Mapping[str, int]  # metric -> digest of its (step, value) pairs, comparable within one process


def is_timing(metric: str) -> bool:
    """Whether a metric is wall time, memory or machine load, which no two runs share."""
    return metric.startswith(TIMING_PREFIXES) or metric.startswith("actor/perf/")


def signature(series: Mapping[str, Mapping[int, float]]) -> dict[str, int]:
    """The digest of every metric of a run but its timings.

    Args:
        series: metric -> step -> value.
    """
    return {
        metric: hash(tuple(sorted((step, value if value == value else "nan") for step, value in values.items())))
        for metric, values in series.items()
        if not is_timing(metric) and any(step > 0 for step in values)
    }


def same_log(ours: Signature, theirs: Signature) -> bool:
    """Whether two runs logged the same training."""
    common = ours.keys() & theirs.keys()
    trained = any(metric.startswith(("actor/", "train/")) and metric != "actor/lr" for metric in common)
    return trained and all(ours[metric] == theirs[metric] for metric in common)


def same_as(logs: Mapping[str, Mapping[int, Signature]]) -> dict[str, str]:
    """Arm -> the arm whose logs it repeats, for every arm of a pair that repeats another one's.

    Args:
        logs: arm -> seed -> signature. Of identical arms the one with the most seeds, then the first by name, stands for
            the others.
    """
    leaders: list[str] = []
    repeats: dict[str, str] = {}
    for arm in sorted(logs, key=lambda arm: (-len(logs[arm]), arm)):
        for leader in leaders:
            seeds = logs[arm].keys() & logs[leader].keys()
            if seeds and all(same_log(logs[arm][seed], logs[leader][seed]) for seed in seeds):
                repeats[arm] = leader
                break
        else:
            leaders.append(arm)
    return repeats


def groups(repeats: Mapping[str, str], arms: Iterable[str]) -> list[list[str]]:
    """The arms, among the given ones, that share their logs: lists of two and more, in the given order."""
    together: dict[str, list[str]] = {}
    for arm in arms:
        together.setdefault(repeats.get(arm, arm), []).append(arm)
    return [group for group in together.values() if len(group) > 1]


def sentence(arm: str, leader: str, pair: str, logs: Mapping[str, Mapping[int, Signature]]) -> str:
    """What a reader must know of an arm that repeats another one's logs."""
    seeds = sorted(logs[arm].keys() & logs[leader].keys())
    return (
        f"{arm} on {pair}: its logs are those of {leader} in every value but timings (seed {listed(seeds)}): what the two "
        "declare differently trained nothing, and they count as one arm in every comparison"
    )
