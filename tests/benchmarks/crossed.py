"""Error rates of main effects and interactions (Verl/statistics/crossed.py) on simulated studies of known truth.

    python -m tests.benchmarks.crossed [studies]      # a row of docs/statistics.md each; minutes
"""

from __future__ import annotations

import sys
from itertools import product

import numpy as np

from Verl.statistics.crossed import contrasts, crossed

# name: levels of each factor, seeds, std over seeds of each combination (the last may have its own), planted interaction
SCENARIOS = {
    "2 x 2, all 0.01, 3 seeds": ((2, 2), 3, (0.01, 0.01), 0.0),
    "2 x 2, all 0.01, 5 seeds": ((2, 2), 5, (0.01, 0.01), 0.0),
    "2 x 2, all 0.03, 3 seeds": ((2, 2), 3, (0.03, 0.03), 0.0),
    "2 x 3, all 0.01, 3 seeds": ((2, 3), 3, (0.01, 0.01), 0.0),
    "2 x 2, one 0.06, others 0.01, 3 seeds": ((2, 2), 3, (0.01, 0.06), 0.0),
    "2 x 2, all 0.01, 3 seeds, interaction 0.15": ((2, 2), 3, (0.01, 0.01), -0.15),
    "2 x 2, all 0.01, 5 seeds, interaction 0.10": ((2, 2), 5, (0.01, 0.01), -0.10),
}
QUESTIONS = 512


def study(rng: np.random.Generator, shape, seeds: int, stds: tuple[float, float], planted: float) -> dict:
    """0/1 scores around 0.6, one answer a question; the last combination is moved by `planted`."""
    difficulty, found, arms = rng.uniform(-0.3, 0.3, QUESTIONS), {}, list(product(*map(range, shape)))
    for arm in arms:
        last = arm == arms[-1]
        mean_S = 0.6 + stds[last] * rng.standard_normal(seeds) + planted * last
        chance_SQ = np.clip(mean_S[:, None] + difficulty, 0.0, 1.0)
        found[tuple(map(str, arm))] = (rng.random((seeds, QUESTIONS)) < chance_SQ).astype(float)
    return found


def row(name: str, studies: int) -> str:
    shape, seeds, stds, planted = SCENARIOS[name]
    rng, shown, last, inside = np.random.default_rng(11), 0, 0, 0
    weights = contrasts([[str(i) for i in range(levels)] for levels in shape])
    truth = [planted * weight[-1] for weight in weights.values()]
    for _ in range(studies):
        found = crossed(study(rng, shape, seeds, stds, planted))
        shown += any(one.p <= 0.05 for one in found)
        last += found[-1].p <= 0.05
        inside += all(one.low <= true <= one.high for one, true in zip(found, truth))
    return f"| {name} | {shown / studies:.3f} | {last / studies:.3f} | {inside / studies:.3f} |"


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    for scenario in SCENARIOS:
        print(row(scenario, count), flush=True)
