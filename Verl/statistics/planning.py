"""What a study can see, and where its next hour is best spent: shares of the noise, smallest difference, seeds or samples.

All variances here are of the mean difference of *one seed's* two runs, arm minus reference; a study of S seeds and K
samples has the squared error

    se^2 = (seeds + interaction + answers / K) / S + choice,

where the last three parts fall as 1 / Q.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from Verl.statistics.compare import selected
from Verl.statistics.data import Differences, differences, read_scores
from Verl.statistics.joint import Family
from Verl.statistics.model import posterior


@dataclass(frozen=True)
class StudyNoise:
    """Where the noise of a comparison comes from, as variances (see the module's formula).

    Args:
        seeds: training, 2 sigma^2. interaction: training, question by question. answers: drawing one answer a question.
        choice: choosing the test questions, per arm and not per seed.
        questions: how many there were. samples: how many answers a question had.
    """

    seeds: float
    interaction: float
    answers: float
    choice: float
    questions: int
    samples: int

    def squared_error(self, seeds: int, samples: int, questions: int | None = None) -> float:
        """se^2 of a study with these numbers."""
        if min(seeds, samples, self.questions if questions is None else questions) < 1:
            raise ValueError(f"seeds, samples and questions must be at least 1, got {seeds}, {samples}, {questions}")
        scale = self.questions / (self.questions if questions is None else questions)
        return (self.seeds + scale * (self.interaction + self.answers / samples)) / seeds + scale * self.choice

    def shares(self, seeds: int = 1, samples: int | None = None) -> dict[str, float]:
        """Each part's share of se^2; they sum to 1 (all 0 without any noise)."""
        samples = self.samples if samples is None else samples
        parts = {
            "seeds": self.seeds / seeds,
            "interaction": self.interaction / seeds,
            "answers": self.answers / samples / seeds,
            "choice": self.choice,
        }
        total = sum(parts.values())
        return {name: part / total if total else 0.0 for name, part in parts.items()}


def _answers(base, arm, rows: np.ndarray) -> float | None:
    """Variance of one seed's mean difference from drawing one answer a question; None where the samples are not given.

    Answers are paired by their number: common random numbers then count as what they are.
    """
    if base.ndim != 3 or arm.ndim != 3 or base.shape[2] != arm.shape[2] or base.shape[2] < 2:
        return None
    difference_SQK = arm[rows] - base[rows]
    return float(difference_SQK.var(axis=2, ddof=1).mean()) / difference_SQK.shape[1]


def noise_of_study(scores: Mapping[str, object], reference: str) -> StudyNoise:
    """Measure the parts of the noise of a typical comparison of this study (medians over its arms).

    Args:
        scores, reference: as for ``compare_with``. Where samples are averaged away, or there is one, what seeds do to
            single questions cannot be separated from that of drawing answers, and counts as answers.
    Raises:
        ValueError: no arm with two seeds in common with the reference.
    """
    base, arms = read_scores(scores, reference)
    data = differences(base, arms)
    tested = np.flatnonzero((data.seeds_A >= 2) & (data.sampling_A > 0.0))
    if tested.size == 0:
        raise ValueError(
            "the noise over seeds needs an arm with two seeds in common with the reference, and not constant"
        )
    data = selected(data, tested)
    noise = posterior(data)
    sigma_squared_A = noise.arm_AG @ noise.sigma_G**2
    mean_square = float(np.median(np.minimum(sigma_squared_A, np.median(sigma_squared_A) * 4.0)))
    raw = {name: np.asarray(values, dtype=float) for name, values in scores.items()}
    sampling, samples = float(np.median(data.sampling_A)), 1
    answers, interaction = sampling, 0.0
    found = []
    for i, name in enumerate(data.names):
        arm, rows = raw[name], np.flatnonzero(differences(base, [arms[tested[i]]]).used_AS[0])
        found.append(_answers(raw[reference], arm, rows))
    if all(one is not None for one in found):
        samples = raw[reference].shape[2]
        answers = float(np.median(found))
        interaction = max(sampling - answers / samples, 0.0)
    return StudyNoise(
        2.0 * mean_square, interaction, answers, float(np.median(data.question_A)), base.score_SQ.shape[1], samples
    )


@lru_cache(maxsize=256)
def _reach(noise: StudyNoise, seeds: int, samples: int, questions: int, arms: int, alpha: float, studies: int) -> np.ndarray:
    """Per simulated study and arm: the true difference that would just have been found, sorted.

    The whole method on simulated seeds. A true difference moves the interval and leaves its width, so that one
    simulation answers for every difference.
    """
    scale = noise.questions / questions
    own = scale * (noise.interaction + noise.answers / samples) / 2.0
    rng = np.random.default_rng(17)
    reach = []
    for _ in range(studies):
        x_AS = math.sqrt(noise.seeds / 2.0 + own) * rng.standard_normal((arms, seeds))
        data = Differences(
            tuple(map(str, range(1, arms))),
            np.ones((arms - 1, seeds), dtype=bool),
            x_AS[1:] - x_AS[0],
            np.full(arms - 1, 2.0 * own),
            np.full(arms - 1, scale * noise.choice),
            own,
            ((),) * (arms - 1),
        )
        family = Family(posterior(data), data.seeds_A, data.question_A, np.zeros(arms - 1, dtype=int))
        moved_A = math.sqrt(scale * noise.choice) * rng.standard_normal(arms - 1)
        reach.append(family.half_widths(alpha) - data.mean_A - moved_A)
    return np.sort(np.concatenate(reach))


def smallest_difference(
    noise: StudyNoise,
    *,
    seeds: int,
    samples: int,
    arms: int,
    questions: int | None = None,
    power: float = 0.8,
    alpha: float = 0.05,
    studies: int | None = None,
) -> float:
    """The true difference that ``compare_with`` calls better (or worse) with chance ``power``; infinite with one seed.

    By simulation of the method itself, with fixed draws; accurate to about 5 %.

    Args:
        noise: from ``noise_of_study``, of this study or of one like it.
        seeds, samples, questions: of each arm (questions: as in ``noise`` by default). arms: with the reference.
        studies: simulated studies, by default enough for about 600 comparisons.
    """
    questions = noise.questions if questions is None else questions
    if seeds < 1 or samples < 1 or questions < 2 or arms < 2:
        raise ValueError(f"need seeds, samples >= 1, questions, arms >= 2: {seeds}, {samples}, {questions}, {arms}")
    if not 0.0 < alpha < 0.5 or not alpha < power < 1.0:
        raise ValueError(f"need 0 < alpha < 0.5 and alpha < power < 1, got alpha {alpha} and power {power}")
    if seeds == 1:
        return math.inf
    if noise.squared_error(seeds, samples, questions) == 0.0:
        return 0.0
    studies = max(24, math.ceil(600 / (arms - 1))) if studies is None else studies
    return float(np.quantile(_reach(noise, seeds, samples, questions, arms, alpha, studies), power))


@dataclass(frozen=True)
class Split:
    """How to spend more: seeds and samples afterwards, the standard error then, and the cost of getting there."""

    seeds: int
    samples: int
    error: float
    cost: float


def best_split(
    noise: StudyNoise, *, seeds: int, samples: int, budget: float, run_cost: float, sample_cost: float, max_samples: int = 64
) -> tuple[Split, Split, Split]:
    """Spend ``budget`` on top of a study: the best mix, seeds alone, samples alone.

    A further sample is drawn for every seed there is (sample_cost each); a further seed costs its run and all its
    samples. Costs in any one unit, of all arms together or of one. The best mix minimises se^2 over all that the budget
    pays for, the cheapest first among equals; ``cochran_samples`` is the long-run answer.

    Args:
        seeds, samples: of the study as it is. run_cost: of one seed without its final answers.
        sample_cost: of one answer to every question, for one seed.
    Raises:
        ValueError: a negative budget, a cost that is not positive.
    """
    if budget < 0.0 or run_cost <= 0.0 or sample_cost <= 0.0:
        raise ValueError(f"need budget >= 0 and costs > 0, got {budget}, {run_cost}, {sample_cost}")
    options = []
    for k in range(samples, max(samples, max_samples) + 1):
        resampling = seeds * (k - samples) * sample_cost
        if resampling > budget * (1.0 + 1e-12):
            break
        more = int((budget - resampling) / (run_cost + k * sample_cost) + 1e-9)
        for s in range(seeds, seeds + more + 1):
            cost = resampling + (s - seeds) * (run_cost + k * sample_cost)
            options.append(Split(s, k, math.sqrt(noise.squared_error(s, k)), cost))
    best = min(options, key=lambda one: (one.error, one.cost))
    only_seeds = min((one for one in options if one.samples == samples), key=lambda one: (one.error, one.cost))
    only_samples = min((one for one in options if one.seeds == seeds), key=lambda one: (one.error, one.cost))
    return best, only_seeds, only_samples


def cochran_samples(noise: StudyNoise, run_cost: float, sample_cost: float) -> float:
    """Samples per question that give most for the money in the long run, whatever the budget.

    sqrt(answers / (seeds + interaction) x run_cost / sample_cost) (two-stage sampling, Cochran 1977, section 10.6), at
    least 1; infinite where seeds add no noise.
    """
    between = noise.seeds + noise.interaction
    if between <= 0.0:
        return math.inf
    return max(1.0, math.sqrt(noise.answers / between * run_cost / sample_cost))
