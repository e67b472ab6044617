"""Many comparisons with one reference: adjusted p-values and simultaneous intervals.

The error of arm a's mean difference is n_a - n_0: n_0 is the reference's and the same for all arms, which is Dunnett's
setting (1955), here with unequal variances that are themselves known as a posterior only. F_a(x) = P(|n_a - n_0| > x)
is each arm's own tail; the family's p is P(min_b F_b(|n_b - n_0|) <= F_a(|d_a|)), from one integral over n_0 in which
the arms are independent.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.special import erfc, ndtr

from Verl.statistics.model import Posterior

_BINS = 96  # of an error's variance
_TAILS = 200  # points of an arm's own tail function
_NODES = 32  # of the integral over n_0
# an arm's own p, where the family's is worked out; between them it is interpolated
LEVELS = np.array([1e-9, 1e-7, 1e-5, 1e-4, 5e-4, 2e-3, 6e-3, 2e-2, 0.1, 0.6])


class Tails:
    """Every arm's own tail F_a(x), a scale mixture of normals, as log F over log x.

    The variances (A, V) of all arms are put on one grid, keeping the mean of each pair of neighbours.
    """

    def __init__(self, variance_AV: np.ndarray, weight_AV: np.ndarray):
        arms = variance_AV.shape[0]
        low, high = variance_AV.min(), variance_AV.max() * (1.0 + 1e-9)
        grid = np.geomspace(low, high, _BINS)
        position_AV = np.log(variance_AV / low) * ((_BINS - 1) / np.log(high / low))
        index_AV = np.clip(position_AV.astype(int), 0, _BINS - 2)
        upper_AV = np.clip((variance_AV - grid[index_AV]) / (grid[index_AV + 1] - grid[index_AV]), 0.0, 1.0)
        flat = (index_AV + _BINS * np.arange(arms)[:, None]).ravel()
        mass = np.bincount(flat, (weight_AV * (1.0 - upper_AV)).ravel(), arms * _BINS + 1)
        mass += np.bincount(flat + 1, (weight_AV * upper_AV).ravel(), arms * _BINS + 1)
        mass_AB = mass[:-1].reshape(arms, _BINS)
        x = np.geomspace(0.02 * np.sqrt(low), 9.0 * np.sqrt(high), _TAILS)
        p_AX = (mass_AB / mass_AB.sum(axis=1, keepdims=True)) @ erfc(x[:, None] / np.sqrt(2.0 * grid)).T
        self._log_x, self._log_p_AX = np.log(x), np.log(np.maximum(p_AX, 1e-300))

    def p(self, x_A: np.ndarray) -> np.ndarray:
        """F_a(x_a) of each arm."""
        log_x_A = np.log(np.maximum(x_A, 1e-300))
        log_p_A = [np.interp(one, self._log_x, row) for one, row in zip(log_x_A, self._log_p_AX)]
        return np.where(x_A > 0.0, np.minimum(np.exp(log_p_A), 1.0), 1.0)

    def x(self, p_L: np.ndarray) -> np.ndarray:
        """Where each arm's tail has the given values, (L, A)."""
        return np.exp(np.stack([np.interp(-np.log(p_L), -row, self._log_x) for row in self._log_p_AX], axis=1))


def to_family(family_L: np.ndarray) -> PchipInterpolator:
    """log of the family's p over the log of an arm's own p, from the family's p at LEVELS."""
    return PchipInterpolator(np.log(LEVELS), np.log(np.maximum.accumulate(np.maximum(family_L, LEVELS))))


class Family:
    """The comparisons' joint error, given the posterior of the noise.

    Args:
        posterior: of ``model.posterior``.
        seeds_A: seeds that each mean difference is over.
        question_A: variance of each that comes from the choice of questions.
        groups_A: arms with equal values share the reference's seeds and so n_0; groups count as independent, which by
            Sidak's inequality makes intervals wider, not narrower.
    """

    def __init__(self, posterior: Posterior, seeds_A: np.ndarray, question_A: np.ndarray, groups_A: np.ndarray):
        self._own_AG = posterior.variance_AG / seeds_A[:, None] + question_A[:, None]
        variance_AGG = self._own_AG[:, :, None] + posterior.reference_G / seeds_A[:, None, None]
        arms = seeds_A.size
        self._tails = Tails(variance_AGG.reshape(arms, -1), posterior.joint_AGG.reshape(arms, -1))
        self._groups = [
            self._group(posterior, np.flatnonzero(groups_A == group), seeds_A) for group in np.unique(groups_A)
        ]
        x_LA = self._tails.x(LEVELS)
        log_none_L = sum(
            np.log1p(-LEVELS) if group[0].size == 1 else self._log_none(group, x_LA[:, group[0]])
            for group in self._groups
        )
        self._to_family = to_family(-np.expm1(log_none_L))

    def _group(self, posterior: Posterior, members: np.ndarray, seeds_A: np.ndarray):
        """Nodes of n_0 >= 0 (it is symmetric), their weights, and each member's P(tau_a | n_0)."""
        variance_G = posterior.reference_G / seeds_A[members[0]]
        mass_G = posterior.base_G
        scale = np.sqrt(np.exp((mass_G * np.log(variance_G)).sum()))
        top = 8.0 * np.sqrt(variance_G[np.flatnonzero(np.cumsum(mass_G) <= 1.0 - 1e-6)[-1:]].max(initial=scale**2))
        step = np.linspace(0.0, np.arcsinh(top / scale), _NODES)
        node_N = scale * np.sinh(step)
        density_NG = np.exp(-0.5 * node_N[:, None] ** 2 / variance_G) / np.sqrt(variance_G)
        weight_N = np.cosh(step) * (density_NG @ mass_G)
        weight_N[[0, -1]] *= 0.5
        given_AGN = np.matmul(posterior.joint_AGG[members], density_NG.T)
        given_AGN /= given_AGN.sum(axis=1, keepdims=True)
        return members, node_N, weight_N / weight_N.sum(), given_AGN

    def _log_none(self, group, x_LA: np.ndarray) -> np.ndarray:
        """log P(no member's error exceeds its x), for each level."""
        members, node_N, weight_N, given_AGN = group
        log_LN = np.zeros((x_LA.shape[0], node_N.size))
        for i, x_L in zip(range(members.size), x_LA.T):
            likely_G = given_AGN[i].max(axis=1) > 1e-8
            std_G = np.sqrt(self._own_AG[members[i]][likely_G])[:, None]
            outside = ndtr((node_N - x_L[:, None, None]) / std_G)
            outside += ndtr((-node_N - x_L[:, None, None]) / std_G)
            outside *= given_AGN[i][likely_G]
            log_LN += np.log1p(-np.minimum(outside.sum(axis=1), 1.0 - 1e-12))
        # 1 - P keeps its digits for small p: sum of weights times expm1
        return np.log1p((weight_N * np.expm1(log_LN)).sum(axis=1).clip(-1.0 + 1e-12, 0.0))

    def own_p(self, difference_A: np.ndarray) -> np.ndarray:
        """Each comparison's p on its own."""
        return self._tails.p(np.abs(difference_A))

    def adjusted(self, own_p_A: np.ndarray) -> np.ndarray:
        """The family's p of each."""
        clipped = np.clip(own_p_A, LEVELS[0], LEVELS[-1])
        family = np.exp(self._to_family(np.log(clipped)))
        # beyond the last level nothing can be significant: straight on to 1
        beyond = own_p_A > LEVELS[-1]
        last = float(np.exp(self._to_family(np.log(LEVELS[-1]))))
        family = np.where(beyond, last + (1.0 - last) * (own_p_A - LEVELS[-1]) / (1.0 - LEVELS[-1]), family)
        return np.minimum(family, 1.0)

    def level(self, alpha: float) -> float:
        """The own p at which the family's p is alpha."""
        low, high = np.log(LEVELS[0]), np.log(LEVELS[-1])
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self._to_family(middle) < np.log(alpha) else (low, middle)
        return float(np.exp(low))

    def half_widths(self, alpha: float) -> np.ndarray:
        """Half the width of each simultaneous interval of confidence 1 - alpha."""
        return self._tails.x(np.array([self.level(alpha)]))[0]
