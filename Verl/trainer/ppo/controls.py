"""Negative controls that live in the trainer (random and format-only rewards are reward rules, see Verl/reward)."""

import numpy as np

from Verl.seeds import derive
from Verl.trainer.ppo.rollouts import Rollouts


def shuffled_rewards(rollouts: Rollouts, seed: int, step: int) -> Rollouts:
    """The same rewards, dealt out at random over the batch: as many successes, none of them where it was earned.

    The logged scores (strict, lenient, flexible, format) stay with their responses; only what trains is shuffled.
    """
    order = np.random.default_rng(derive(seed, "shuffle_rewards", step)).permutation(len(rollouts))
    shuffled = rollouts.with_rewards([rollouts.rewards[row] for row in order])
    return shuffled
