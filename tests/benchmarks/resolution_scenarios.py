"""Simulated studies for the resolution benchmark: what the seeds, the questions and the answers do in each scenario.

A study has a reference and ``arms - 1`` others. Arm a, seed s has the mean accuracy mu_as = level + effect_a + u_as; the
questions' chances are a common profile moved on the logit scale until their mean is mu_as (so the truth is exact), plus
what the scenario does to single questions; K answers are drawn per question.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Spread = Callable[[np.random.Generator, int], np.ndarray]


def alike(std: float) -> Spread:
    """All arms with the same seeds' std."""
    return lambda rng, arms: np.full(arms, std)


def mixed(low: float, high: float) -> Spread:
    """Each arm's std drawn uniformly."""
    return lambda rng, arms: rng.uniform(low, high, arms)


def one_wild(std: float, wild: float) -> Spread:
    """One arm, never the reference, with another std."""

    def draw(rng: np.random.Generator, arms: int) -> np.ndarray:
        found = np.full(arms, std)
        found[1 + rng.integers(arms - 1)] = wild
        return found

    return draw


def wild_reference(std: float, wild: float) -> Spread:
    """The reference with another std than the rest."""

    def draw(rng: np.random.Generator, arms: int) -> np.ndarray:
        found = np.full(arms, std)
        found[0] = wild
        return found

    return draw


def quiet_reference(std: float, low: float, high: float) -> Spread:
    """The reference with a small std, the others' drawn uniformly."""
    return lambda rng, arms: np.r_[std, rng.uniform(low, high, arms - 1)]


def two_kinds(low: float, high: float) -> Spread:
    """Each arm with one of two stds."""
    return lambda rng, arms: rng.choice([low, high], arms)


@dataclass(frozen=True)
class Scenario:
    """One kind of study.

    Args:
        name: in the table.
        spread: seeds' std of every arm, the reference first.
        arms: with the reference. seeds, samples, questions: of each arm.
        level: mean accuracy. profile: concentration of the questions' Beta distribution; small is nearly all 0 or 1.
        seed_tail: degrees of freedom of the seeds' deviations (t, scaled to the std); 0 normal; -1 skewed (exponential).
        collapse: chance that a seed ends 0.2 to 0.4 lower.
        clusters: number of clusters of questions that a seed moves together, 0 for none; cluster_std on the logit scale.
        question_std: of each arm's own effect on single questions, logit scale; the truth is the effect on other
            questions.
        interaction_std: of each seed's effect on single questions, logit scale.
        shared_seed: std of what a seed number does to all arms alike.
        common_draws: answers of all arms from common random numbers.
        ragged: each other arm has 2 to ``seeds`` seeds.
        real: scores are rewards from a Beta distribution, not 0/1.
        planted: difference that every second arm has where power and coverage are measured.
        issue: one of the seven of the issue.
    """

    name: str
    spread: Spread
    arms: int = 28
    seeds: int = 3
    samples: int = 8
    questions: int = 512
    level: float = 0.7
    profile: float = 1.0
    seed_tail: int = 0
    collapse: float = 0.0
    clusters: int = 0
    cluster_std: float = 0.0
    question_std: float = 0.0
    interaction_std: float = 0.0
    shared_seed: float = 0.0
    common_draws: bool = False
    ragged: bool = False
    real: bool = False
    planted: float = 0.05
    issue: bool = False


SCENARIOS = (
    Scenario("all 0.01, 3 x 1", alike(0.01), samples=1, issue=True),
    Scenario("all 0.01, 3 x 8", alike(0.01), issue=True),
    Scenario("all 0.01, 5 x 8", alike(0.01), seeds=5, issue=True),
    Scenario("all 0.03, 5 x 8", alike(0.03), seeds=5, issue=True),
    Scenario("mixed 0.005 to 0.05, 3 x 1", mixed(0.005, 0.05), samples=1, issue=True),
    Scenario("mixed 0.005 to 0.05, 5 x 8", mixed(0.005, 0.05), seeds=5, issue=True),
    Scenario("one arm 0.08, others 0.01, 3 x 8", one_wild(0.01, 0.08), issue=True),
    Scenario("one seed in ten collapses, 3 x 8", alike(0.01), collapse=0.1),
    Scenario("one seed in ten collapses, 5 x 8", alike(0.01), seeds=5, collapse=0.1),
    Scenario("seeds t with 3 df, std 0.03, 3 x 8", alike(0.03), seed_tail=3),
    Scenario("clusters of 8 questions, 3 x 8", alike(0.005), clusters=64, cluster_std=0.5),
    Scenario("effects on single questions, 3 x 8", alike(0.01), question_std=0.5, interaction_std=0.5),
    Scenario("2 to 5 seeds, 5 x 8", alike(0.01), seeds=5, ragged=True),
    Scenario("2 to 5 seeds, mixed, 5 x 1", mixed(0.005, 0.05), seeds=5, samples=1, ragged=True),
    Scenario("2 arms, 0.01, 3 x 8", alike(0.01), arms=2),
    Scenario("2 arms, 0.05, 3 x 1", alike(0.05), arms=2, samples=1),
    Scenario("4 arms, mixed, 3 x 1", mixed(0.005, 0.05), arms=4, samples=1),
    Scenario("40 arms, 0.01, 3 x 8", alike(0.01), arms=40),
    Scenario("40 arms, mixed, 10 x 8", mixed(0.005, 0.05), arms=40, seeds=10),
    Scenario("level 0.01, std 0.002, 3 x 1", alike(0.002), level=0.01, profile=20.0, samples=1, planted=0.002),
    Scenario("level 0.99, std 0.002, 3 x 8", alike(0.002), level=0.99, planted=0.002),
    Scenario("real scores, 0.02, 3 x 8", alike(0.02), real=True),
)
# looked at once the method was fixed, to see whether it was fitted to the list above
UNSEEN = (
    Scenario("reference 0.06, others 0.01, 3 x 8", wild_reference(0.01, 0.06)),
    Scenario("reference 0.003, others mixed, 4 x 2", quiet_reference(0.003, 0.005, 0.06), seeds=4, samples=2),
    Scenario("seeds skewed, 0.03, 4 x 4", alike(0.03), seeds=4, samples=4, seed_tail=-1),
    Scenario("two kinds 0.004 and 0.04, 3 x 4", two_kinds(0.004, 0.04), samples=4),
    Scenario("2 seeds, mixed, 2 x 8", mixed(0.005, 0.03), seeds=2, arms=12),
    Scenario("shared seeds, common draws, 3 x 1", alike(0.008), samples=1, shared_seed=0.02, common_draws=True),
    Scenario("3 arms, one wild, 3 x 4", one_wild(0.01, 0.06), arms=3, samples=4),
    Scenario("no noise over seeds, 3 x 1", alike(0.0), samples=1),
    Scenario("32 questions, 0.03, 4 x 4", alike(0.03), arms=10, seeds=4, samples=4, questions=32),
    Scenario("3 % collapse of 8 arms, 4 x 8", alike(0.01), arms=8, seeds=4, collapse=0.03),
)


def _deviations(case: Scenario, rng: np.random.Generator, std_A: np.ndarray) -> np.ndarray:
    """u_as, (A, S), mean 0 in truth."""
    shape = (std_A.size, case.seeds)
    if case.seed_tail > 0:
        unit = rng.standard_t(case.seed_tail, shape) / np.sqrt(case.seed_tail / (case.seed_tail - 2.0))
    elif case.seed_tail < 0:
        unit = 1.0 - rng.exponential(size=shape)
    else:
        unit = rng.standard_normal(shape)
    u_AS = unit * std_A[:, None]
    if case.shared_seed:
        u_AS += case.shared_seed * rng.standard_normal(case.seeds)
    if case.collapse:  # the same expected loss for all arms
        u_AS -= (rng.random(shape) < case.collapse) * rng.uniform(0.2, 0.4, shape)
    return u_AS


def _chances(case: Scenario, rng: np.random.Generator, mean_AS: np.ndarray) -> np.ndarray:
    """Chance of a right answer, (A, S, Q)."""
    arms, seeds = mean_AS.shape
    concentration = case.profile
    p_Q = np.clip(
        rng.beta(case.level * concentration, (1.0 - case.level) * concentration, case.questions), 1e-4, 1 - 1e-4
    )
    logit_Q = np.log(p_Q / (1.0 - p_Q))
    moved = np.zeros((arms, 1, case.questions))
    if case.question_std:
        moved = moved + case.question_std * rng.standard_normal((arms, 1, case.questions))
    if case.interaction_std:
        moved = moved + case.interaction_std * rng.standard_normal((arms, seeds, case.questions))
    if case.clusters:
        effect = case.cluster_std * rng.standard_normal((arms, seeds, case.clusters))
        moved = moved + np.repeat(effect, case.questions // case.clusters, axis=2)
    shift_B = np.linspace(-12.0, 12.0, 161)
    mean_B = (1.0 / (1.0 + np.exp(-(logit_Q[None, :] + shift_B[:, None])))).mean(axis=1)
    bounded = np.clip(mean_AS, mean_B[0], mean_B[-1])
    shift_AS = np.interp(bounded, mean_B, shift_B)
    return 1.0 / (1.0 + np.exp(-(logit_Q + moved + shift_AS[:, :, None])))


def study(case: Scenario, rng: np.random.Generator, effect_A: np.ndarray) -> dict[str, np.ndarray]:
    """The scores of one study; ``effect_A`` of all arms, the reference's first (0). The arms' names are a0, a1, ..."""
    std_A = case.spread(rng, case.arms)
    mean_AS = case.level + effect_A[:, None] + _deviations(case, rng, std_A)
    p_ASQ = _chances(case, rng, mean_AS)
    shape = (*p_ASQ.shape, case.samples)
    if case.real:
        scores = rng.beta(4.0 * p_ASQ[..., None], 4.0 * (1.0 - p_ASQ[..., None]), shape)
    else:
        draws = rng.random(shape[1:] if case.common_draws else shape, dtype=np.float32)
        scores = draws < p_ASQ[..., None].astype(np.float32)
    lengths = rng.integers(2, case.seeds + 1, case.arms) if case.ragged else np.full(case.arms, case.seeds)
    lengths[0] = case.seeds
    return {f"a{i}": scores[i, : lengths[i]] for i in range(case.arms)}
