"""One comparison of an arm with its reference: the verdict, and the plain paired t beside it."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

from Verl.analysis import stats
from Verl.analysis.verdicts.judge import Verdict


@dataclass(frozen=True)
class Comparison:
    """One arm against the reference on one pair; the sentence says why where nothing can be said.

    ``at``: the step or budget of the comparison; ``seeds``: the paired ones; ``questions``: 0 if only the seeds' averages
    were compared; ``judged``: the verdict, None where there is no paired seed; ``result``, ``adjusted_p``, ``family``:
    the plain paired t as a check, its p by Holm, and the comparisons that Holm ran over; ``why_not``: what stands in the
    way; ``counted_as``: the (arm, compared with) that this comparison repeats, because the logs are identical;
    ``repeated_by``: the arms whose comparisons repeat this one.
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
    family: int = 0
    why_not: str = ""
    counted_as: tuple[str, str] | None = None
    repeated_by: tuple[str, ...] = ()
    judged: Verdict | None = None
    samples: int = 1

    @property
    def known(self) -> bool:
        """Whether there is a difference with an interval."""
        return self.judged is not None and self.judged.known

    @property
    def verdict(self) -> str | None:
        """better, worse, equivalent or undecided; None where nothing can be said."""
        return self.judged.found.verdict if self.judged is not None and (self.known or self.result is not None) else None

    def beyond_noise(self, alpha: float = 0.05) -> bool:
        """Whether a difference is shown, by the verdict's own p; a difference may be shown and too small to matter."""
        return self.known and self.judged.found.p <= alpha

    def check_shows(self, alpha: float = 0.05) -> bool:
        """Whether the plain paired t shows a difference."""
        return self.adjusted_p is not None and self.adjusted_p <= alpha

    def disputed(self, alpha: float = 0.05) -> bool:
        """Whether verdict and plain t disagree on a difference being shown."""
        return self.known and self.adjusted_p is not None and self.beyond_noise(alpha) != self.check_shows(alpha)

    def detectable(self, alpha: float = 0.05) -> float | None:
        """The true difference that this comparison would find in 4 of 5 such studies.

        Half the interval's width and 0.84 standard errors; the error from the width as if the errors were normal, which
        makes it a little too large with few seeds.
        """
        if not self.known:
            return None
        own = 1.0 - (1.0 - alpha) ** (1.0 / self.judged.family)
        half = 0.5 * (self.judged.found.high - self.judged.found.low)
        return half * (1.0 + 0.8416 / -NormalDist().inv_cdf(0.5 * own))
