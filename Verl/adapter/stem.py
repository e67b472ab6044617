"""The stem of a batch's prompts: the tokens that all of them begin with, a system message or worked examples, say.

Like a prompt that several responses share it needs to go through the model once only: in the prefill of a rollout
(Verl/adapter/hf/decoder.py) and in the passes of training (Verl/cpu/shared_prefix.py).
"""

from collections.abc import Sequence

FEWEST = 8  # tokens: below, the additional pieces of attention cost as much as is saved


def stem_length(prompts: Sequence[Sequence[int]]) -> int:
    """Count the tokens that all prompts begin with.

    A prompt's last token is never among them: it predicts the response, so that each prompt keeps at least one of its own.

    Args:
        prompts: token ids of each prompt.

    Returns:
        0 where it is not worth the while: fewer than two different prompts, or fewer than `FEWEST` tokens.
    """
    first, last = list(min(prompts)), list(max(prompts))  # what these two begin with, all between them begin with
    if first == last:
        return 0
    alike = next((place for place, (one, other) in enumerate(zip(first, last)) if one != other), len(first))
    shared = min(alike, *(len(prompt) - 1 for prompt in prompts))
    return shared if shared >= FEWEST else 0
