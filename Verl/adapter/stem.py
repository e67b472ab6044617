"""The stem of a batch's prompts: the tokens that all of them begin with, a system message or worked examples, say.

Like a prompt that several responses share it needs to go through the model once only: in the prefill of a rollout
(Verl/adapter/hf/decoder.py) and in the passes of training (Verl/cpu/shared_prefix.py).
"""

from collections.abc import Sequence
from os.path import commonprefix

FEWEST = 8  # tokens: below, the additional pieces of attention cost as much as is saved


def stem_length(prompts: Sequence[Sequence[int]]) -> int:
    """Count the tokens that all prompts begin with.

    A prompt's last token is never among them: it predicts the response, so that each prompt keeps at least one of its own.

    Args:
        prompts: token ids of each prompt.

    Returns:
        0 where it is not worth the while: fewer than two different prompts, or fewer than `FEWEST` tokens.
    """
    ends = [list(min(prompts)), list(max(prompts))]  # what these two begin with, all between them begin with
    shared = min(len(commonprefix(ends)), min(map(len, prompts)) - 1)
    return shared if ends[0] != ends[1] and shared >= FEWEST else 0
