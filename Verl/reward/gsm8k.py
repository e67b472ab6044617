"""GSM8K: `#### <number>` at the end of the answer.

Strict: the rule of verl 0.9.1 (`verl/utils/reward_score/gsm8k.py`, method "strict", after ReFT, Trung et al. 2024), so
that numbers compare with published ones. In the last 300 characters, the last `#### ` followed by digits, points and
commas, perhaps after a minus, is the answer; commas are dropped; it must be the same *text* as the truth. Known effects
of that rule, kept on purpose:

- lenient: what follows the number does not matter (`#### 18 ducks`, `#### 18abc`), commas may stand anywhere
  (`#### 1,8` is 18), more marks are no harm (`##### 18`), and of several answers the last counts;
- severe: `#### 18.`, `#### 18.0`, `#### 018`, `#### $18`, `####18` and `#### +18` are all wrong, and so is a right
  answer more than 300 characters before the end. (verl also drops `$`, but its pattern never lets one in.)

Flexible: strict, or the last number of the whole text has the truth's value (7.0 is 7; `$`, `%`, thousands separators
and the full stop of a sentence do not count). Only the digits 0-9 make a number; fractions and exponents are not read.
Format: a well-formed `#### number` stands anywhere in the text.
"""

import re
from decimal import Decimal

from Verl.reward.result import Scores, scores

_CLIP_CHARS = 300
_STRICT = re.compile(r"#### (-?[0-9.,]+)")
# Thousands separators count as such only in groups of three: "1,234" is one number, "1,2345" and "3,5" are two.
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?"
_WELL_FORMED = re.compile(rf"#### -?{_DIGITS}")
# A minus is a sign where it can't be a subtraction: not right after a digit, a letter or a closing bracket.
_NUMBER = re.compile(rf"((?<![\w)\]])[-\u2212])?\$?({_DIGITS}|\.[0-9]+)")


def strict_answer(text: str) -> str | None:
    """What the strict rule reads as the answer, or None where there is none."""
    found = _STRICT.findall(text[-_CLIP_CHARS:])
    return found[-1].replace(",", "") if found else None


def last_number(text: str) -> Decimal | None:
    """The value of the last number of a text, or None where there is none."""
    found = _NUMBER.findall(text)
    if not found:
        return None
    sign, digits = found[-1]
    value = Decimal(digits.replace(",", ""))
    return value.copy_negate() if sign else value


def score(text: str, truth: str) -> Scores:
    """Score one answer to a GSM8K question whose true answer is the number `truth`.

    Raises:
        ValueError: `truth` holds no number.
    """
    truth = truth.strip().replace(",", "").replace("$", "")
    true_value = last_number(truth)
    if true_value is None:
        raise ValueError(f"the ground truth {truth!r} of a GSM8K question is not a number")
    return scores(
        strict=strict_answer(text) == truth,
        flexible=last_number(text) == true_value,
        well_formed=_WELL_FORMED.search(text) is not None,
    )
