"""One response, four scores: strict, lenient, flexible, format (see `Verl.reward.result.Scores`)."""

from typing import Any

from Verl.reward import arithmetic, gsm8k, hendrycks, last_number
from Verl.reward.guard import MathVerifyGuard
from Verl.reward.result import Scores
from Verl.reward.sources import CHAIN_SUM, GSM8K, KNOWN_DATA_SOURCES, LARGEST, MATH, MATH_500

_RULES = {GSM8K: gsm8k.score, CHAIN_SUM: arithmetic.score, LARGEST: last_number.score}
_WITH_GUARD = {MATH: hendrycks.score, MATH_500: hendrycks.score}


def may_block(data_source: Any) -> bool:
    """Whether scoring may wait for math-verify; the other rules take a fraction of a millisecond."""
    return data_source in _WITH_GUARD


def has_lenient_rule(data_source: Any) -> bool:
    """Whether the lenient score of a data set may differ from its strict one."""
    return data_source in _WITH_GUARD


def score_fully(data_source: str, solution_str: str, ground_truth: Any, guard: MathVerifyGuard | None = None) -> Scores:
    """All that is known about one response, failures and timeouts of math-verify included.

    Args:
        data_source: one of `Verl.reward.sources.KNOWN_DATA_SOURCES`.
        solution_str: the response as text, special tokens left out.
        ground_truth: the true answer; anything but text is turned into text first (some files hold numbers).
        guard: who runs math-verify for MATH; by default the guard that this process shares.

    Raises:
        ValueError: an unknown data source, or a ground truth that its rule can't read. No response raises.
    """
    if data_source in _RULES:
        return _RULES[data_source](solution_str, str(ground_truth))
    if data_source in _WITH_GUARD:
        return _WITH_GUARD[data_source](solution_str, str(ground_truth), guard)
    known = ", ".join(repr(name) for name in KNOWN_DATA_SOURCES)
    raise ValueError(f"no scoring rule for data_source {data_source!r}: known are {known}")


def score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: dict[str, Any] | None = None
) -> dict[str, float]:
    """The four scores of one response, each 0.0 or 1.0; same arguments as a `compute_score` of verl.

    Example:
        >>> score("openai/gsm8k", "so it is 18", "18")
        {'strict': 0.0, 'lenient': 0.0, 'flexible': 1.0, 'format': 0.0}

    `extra_info` is accepted because verl passes it; no rule of ours looks at it. For errors see `score_fully`; a
    caller who must tell a wrong answer from a failed or stopped scorer uses that one too.
    """
    result = score_fully(data_source, solution_str, ground_truth)
    return {name: getattr(result, name) for name in ("strict", "lenient", "flexible", "format")}
