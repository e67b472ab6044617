"""Questions with one number as the answer and no form asked for (`largest`): the last number that is written counts.

Strict and flexible: the last number of the text, read as GSM8K's flexible rule reads it, has the truth's value. Whoever
repeats the question earns nothing by it unless the truth stands there last. Format: the text holds a number.
"""

from Verl.reward.gsm8k import last_number
from Verl.reward.result import Scores, scores


def score(text: str, truth: str) -> Scores:
    """Score one answer whose true answer is the number `truth`.

    Raises:
        ValueError: `truth` holds no number.
    """
    true_value, value = last_number(truth), last_number(text)
    if true_value is None:
        raise ValueError(f"the ground truth {truth!r} is not a number")
    return scores(strict=value == true_value, flexible=value == true_value, well_formed=value is not None)
