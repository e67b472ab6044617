"""The method that compare_with replaced, for comparison: each arm's variance under one fitted log-normal prior, then Holm.

Per arm the variance over seeds of its paired difference is sigma^2 + D (D known as in Verl.statistics.data); log sigma is
normal with mean and std at their largest marginal likelihood over all arms; p is the posterior mean of the normal tail.
Written again from its description, so that its numbers are near those of the first prototype and not the same.
"""

from __future__ import annotations

import numpy as np
from scipy.special import erfc

from Verl.analysis.stats import holm
from Verl.statistics.data import differences, read_scores


def prototype_p(scores: dict[str, np.ndarray], reference: str) -> np.ndarray:
    """Holm's p of every arm, in the order of ``scores``."""
    base, arms = read_scores(scores, reference)
    data = differences(base, arms)
    seeds_A = data.seeds_A
    deviation_AS = (data.difference_AS - data.mean_A[:, None]) * data.used_AS
    square_A = (deviation_AS**2).sum(axis=1)
    sigma_G = np.geomspace(2e-4, 0.5, 60)
    total_AG = sigma_G**2 + data.sampling_A[:, None]
    log_AG = -0.5 * (seeds_A - 1)[:, None] * np.log(total_AG) - 0.5 * square_A[:, None] / total_AG
    like_AG = np.exp(log_AG - log_AG.max(axis=1, keepdims=True))
    centre, spread = np.meshgrid(np.log(np.geomspace(5e-4, 0.2, 30)), [0.1, 0.2, 0.35, 0.6, 1.0, 1.5], indexing="ij")
    prior_HG = np.exp(-0.5 * ((np.log(sigma_G) - centre.reshape(-1, 1)) / spread.reshape(-1, 1)) ** 2)
    prior_HG /= prior_HG.sum(axis=1, keepdims=True)
    best = int(np.log(like_AG @ prior_HG.T).sum(axis=0).argmax())
    weight_AG = like_AG * prior_HG[best]
    weight_AG /= weight_AG.sum(axis=1, keepdims=True)
    error_AG = np.sqrt(total_AG / seeds_A[:, None])
    own_A = (weight_AG * erfc(np.abs(data.mean_A)[:, None] / (np.sqrt(2.0) * error_AG))).sum(axis=1)
    return holm(np.minimum(own_A, 1.0))
