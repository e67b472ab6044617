"""What a response answers, so that answers can vote (maj@k).

The rules are the scorers' own (Verl/reward): what the strict rule reads under "strict", the last number or the box under
"lenient" and "flexible". All right responses of a question vote for one and the same answer, since each equals the truth;
that also joins spellings that only math-verify calls equal. Wrong responses vote together where their answers are written
alike, so wrong spellings of one value split their votes: with MATH, maj@k under the flexible rule is a little generous.
"""

from __future__ import annotations

from collections.abc import Hashable
from decimal import Decimal

from Verl.reward import gsm8k, hendrycks, verl_math
from Verl.reward.normalise import normalise
from Verl.reward.sources import CHAIN_SUM, GSM8K, LARGEST

RIGHT = "the right answer"


def voted_answer(data_source: str, text: str, rule: str, correct: bool, well_formed: bool) -> Hashable:
    """The answer that a response votes for; None if it holds none that `rule` ("strict", "lenient" or "flexible")
    can read."""
    if correct:
        return RIGHT
    if rule == "strict" and data_source == GSM8K:
        answer: object = gsm8k.strict_answer(text)
    elif rule == "strict" and data_source == CHAIN_SUM:
        # Well formed means that an integer follows the last mark.
        answer = Decimal(text.rpartition("#")[2].strip()) if well_formed else None
    elif data_source in (GSM8K, CHAIN_SUM, LARGEST):
        answer = gsm8k.last_number(text)
    elif rule == "strict":
        content = verl_math.answer(text)
        answer = None if content is None else verl_math.respelt(content)
    else:
        content = hendrycks.boxed(text)
        answer = None if content is None else normalise(content)
    return None if answer is None else ("wrong", answer)
