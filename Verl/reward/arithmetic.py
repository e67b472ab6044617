"""The embedded arithmetic task (reasoning-gym `chain_sum`): running sums, then `#` and the result (`7+5=12;12-3=9;#9`).

Strict: what follows the last `#`, stripped, is an integer equal to the truth; so it also ends the answer.
Flexible: the last integer of the text equals the truth, whether or not a `#` stands before it.
Format: what follows the last `#`, stripped, is an integer.
Edge cases: leading zeros and -0 are read by value (`#09` is 9); only the digits 0-9 count, after at most one minus.
"""

import re

from Verl.reward.result import Scores, scores

_INTEGER = re.compile(r"-?[0-9]+")
# In a text, a minus after a digit is a subtraction: the last integer of "12-3" is 3.
_INTEGER_IN_TEXT = re.compile(r"(?:(?<![0-9)])-)?[0-9]+")


def _canonical(integer: str) -> str:
    """One spelling per value, without int(), which refuses more than 4,300 digits (and a model may write them)."""
    digits = integer.lstrip("-").lstrip("0")
    return ("-" if integer.startswith("-") else "") + digits if digits else "0"


def score(text: str, truth: str) -> Scores:
    """Score one answer to an arithmetic question whose true answer is the integer `truth`.

    Raises:
        ValueError: `truth` is not an integer.
    """
    truth = truth.strip()
    if not _INTEGER.fullmatch(truth):
        raise ValueError(f"the ground truth {truth!r} of an arithmetic question is not an integer")
    truth = _canonical(truth)
    _, mark, after = text.rpartition("#")
    answer = after.strip()
    well_formed = bool(mark) and _INTEGER.fullmatch(answer) is not None
    integers = _INTEGER_IN_TEXT.findall(text)
    return scores(
        strict=well_formed and _canonical(answer) == truth,
        flexible=bool(integers) and _canonical(integers[-1]) == truth,
        well_formed=well_formed,
    )
