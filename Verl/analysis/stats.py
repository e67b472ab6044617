"""Every statistic of the project in one import: ``from Verl.analysis import stats``.

Two questions must be kept apart, because their answers differ:

* *Would other questions give the same result?* One model, or two models on the same questions: ``Verl.statistics.questions``
  (pass@k, maj@k, exact McNemar, bootstrap over questions).
* *Would other seeds give the same result?* Several runs of one arm: ``Verl.statistics.seeds`` (IQM, probability of improvement,
  paired differences over seeds and questions, Holm, the smallest detectable effect, learning speed).

``compare_with`` answers the second for all arms of a study at once (``Verl.statistics``, docs/statistics.md).

A difference between two arms that is sure over questions but comes from one seed says nothing about the arms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from Verl.statistics.questions import (
    Difference,
    Interval,
    bootstrap_interval,
    maj_at_k,
    mcnemar_exact,
    paired_bootstrap,
    pass_at_k,
)
from Verl.statistics.seeds import (
    Noise,
    area_under_curve,
    holm,
    iqm,
    noise_of,
    paired_seeds,
    paired_two_way,
    probability_of_improvement,
    seed_interval,
    smallest_detectable_effect,
    steps_to_threshold,
    stratified_bootstrap_interval,
    two_level_bootstrap,
)
from Verl.statistics.student import t_critical, t_two_sided_p

if TYPE_CHECKING:
    from Verl.statistics.compare import compare_with

__all__ = [
    "Difference",
    "Interval",
    "Noise",
    "area_under_curve",
    "bootstrap_interval",
    "compare_with",
    "holm",
    "iqm",
    "maj_at_k",
    "mcnemar_exact",
    "noise_of",
    "paired_bootstrap",
    "paired_seeds",
    "paired_two_way",
    "pass_at_k",
    "probability_of_improvement",
    "seed_interval",
    "smallest_detectable_effect",
    "steps_to_threshold",
    "stratified_bootstrap_interval",
    "t_critical",
    "t_two_sided_p",
    "two_level_bootstrap",
]


def __getattr__(name: str):
    """``compare_with`` on first use: it needs scipy, which takes a second to import and which figures and training do not."""
    if name == "compare_with":
        from Verl.statistics.compare import compare_with

        return compare_with
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
