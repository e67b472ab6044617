"""What a study will show, before it is started: shares of the noise, smallest difference, seeds or samples.

The noise is measured on finished runs of the pair where there are any, else assumed (study.yaml, ``detectable``); the
method is that of the verdicts (docs/statistics.md, "Planning").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from Verl.analysis.runs.run_file import TEST
from Verl.analysis.runs.table import load_runs
from Verl.analysis.verdicts.compare import shared_scores
from Verl.statistics.planning import StudyNoise, best_split, cochran_samples, noise_of_study, smallest_difference

_WORDS = {
    "seeds": "training seeds", "interaction": "seeds on single questions", "answers": "luck of the answers",
    "choice": "choice of questions",
}  # fmt: skip


def assumed_noise(settings: Mapping[str, Any], questions: int) -> StudyNoise:
    """From study.yaml's assumptions: std over seeds of the difference of two arms, and a Pass@1 for the answers' luck,
    2 p (1 - p) / Q, as if the arms' answers were independent (common random numbers make it smaller)."""
    p = settings["pass_at_1"]
    return StudyNoise(settings["seed_std"] ** 2, 0.0, 2.0 * p * (1.0 - p) / questions, 0.0, questions, 1)


def measured_noise(result_dir: Path, pair: str, arms: Sequence[str], reference: str) -> tuple[StudyNoise, str] | None:
    """From the last evaluations of the pair's runs, and on what it rests; None where they cannot tell it."""
    runs = load_runs(result_dir, lambda metric: metric == TEST)
    if runs.table.empty:
        return None
    scores = shared_scores(runs, result_dir, pair, arms, reference)
    if scores is None:
        return None
    try:
        noise = noise_of_study(scores, reference)
    except ValueError:  # no arm has two seeds in common with the reference
        return None
    seeds = max(len(one) for one in scores.values())
    answers = f"{noise.samples} answer{'s' * (noise.samples > 1)} per question"
    return noise, f"measured on {len(scores)} arms of {pair}, {seeds} seeds x {noise.questions} questions, {answers}"


def expected(
    noise: StudyNoise, source: str, *, arms: int, seeds: int, samples: int, questions: int, settings: Mapping[str, Any]
) -> list[str]:
    """What the study will show: the shares of a comparison's squared error, and the smallest difference.

    Args:
        noise: measured or assumed; source: which, in words. arms: with the reference.
    """
    options = {"alpha": settings["alpha"], "power": settings["power"]}
    shares = noise.shares(seeds, samples)
    parts = ", ".join(f"{_WORDS[name]} {100 * share:.0f} %" for name, share in shares.items() if share)
    found = smallest_difference(noise, seeds=seeds, samples=samples, arms=arms, questions=questions, **options)
    size = "none (one seed says nothing of the noise of training)" if math.isinf(found) else f"{found:.3f}"
    comparisons = "1 comparison" if arms == 2 else f"{arms - 1} comparisons"
    return [
        f"smallest difference in test Pass@1 that the study will show: {size} ({comparisons} with one reference, {seeds} "
        f"seeds x {samples} answers x {questions} questions; power {options['power']:g}, level {options['alpha']:g})",
        f"  noise: {source}; of a comparison's squared error: {parts or 'none'}; the method: docs/statistics.md",
    ]


def next_hour(
    noise: StudyNoise, *, seeds: int, samples: int, questions: int, run_hours: float, sample_hours: float
) -> list[str]:
    """Where the next hours are best spent: further seeds of every arm, or further answers of the seeds that there are.

    Args:
        run_hours: of one seed of every arm, without the further answers. sample_hours: of one more answer to every
            question, for one seed of every arm.
    """
    scale = noise.questions / questions
    here = replace(noise, interaction=noise.interaction * scale, answers=noise.answers * scale,
                   choice=noise.choice * scale, questions=questions)  # fmt: skip
    budget = max(1.0, run_hours + samples * sample_hours)
    costs = {"seeds": seeds, "samples": samples, "run_cost": run_hours, "sample_cost": sample_hours}
    best, more_seeds, more_samples = best_split(here, budget=budget, **costs)
    now = math.sqrt(here.squared_error(seeds, samples))
    what = "further answers" if best.seeds == seeds else "further seeds" if best.samples == samples else "both"
    if best.error >= now:
        what = "nothing: neither helps"
    long_run = cochran_samples(here, run_hours, sample_hours)
    often = "as many as can be had" if math.isinf(long_run) else f"about {round(long_run)}"
    hours = f"{budget:,.0f}" if budget >= 10 else f"{budget:.2g}"
    return [
        f"the next {hours} hours (all arms) are best spent on {what}: {best.seeds} seeds x {best.samples} answers, "
        f"standard error {now:.4f} -> {best.error:.4f}; "
        f"seeds alone ({more_seeds.seeds} x {samples}) {more_seeds.error:.4f}, "
        f"answers alone ({seeds} x {more_samples.samples}) {more_samples.error:.4f}",
        f"  answers per question that pay in the long run (evaluation.final_samples): {often}",
    ]
