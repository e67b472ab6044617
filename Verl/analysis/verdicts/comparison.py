"""One comparison of two arms, as compare.py finds it and text.py says it."""

from __future__ import annotations

from dataclasses import dataclass

from Verl.analysis import stats


@dataclass(frozen=True)
class Comparison:
    """One arm against the base line on one pair. ``result`` is None where no test was possible; the sentence says why.

    ``at``: the step or budget of the comparison; ``questions``: 0 if only the seeds' averages were compared;
    ``family``: comparisons that Holm's correction ran over; ``noise``: of this comparison, as far as it can be told;
    ``why_not``: what stands in the way of a test; ``counted_as``: the (arm, compared with) that this comparison repeats,
    because the logs are identical; ``repeated_by``: the arms whose comparisons repeat this one.
    """

    pair: str
    arm: str
    base_line: str
    axis: str
    at: float | None
    seeds: tuple[int, ...]
    questions: int
    result: stats.Difference | None
    adjusted_p: float | None
    sentence: str
    notes: tuple[str, ...] = ()
    noise: stats.Noise | None = None
    family: int = 0
    why_not: str = ""
    counted_as: tuple[str, str] | None = None
    repeated_by: tuple[str, ...] = ()

    def beyond_noise(self, alpha: float = 0.05) -> bool:
        return self.adjusted_p is not None and self.adjusted_p <= alpha

    def detectable(self, alpha: float = 0.05, power: float = 0.8) -> float | None:
        """The true difference that this comparison would find with chance ``power`` at Holm's first step, given its own
        noise; rough with few seeds, whose noise is itself a guess."""
        if self.noise is None:
            return None
        options = {"alpha": alpha, "power": power, "comparisons": max(1, self.family)}
        return stats.smallest_detectable_effect(len(self.seeds), max(2, self.questions), *self.noise, **options)
