"""The hierarchical model of the seeds' variance and its posterior, by quadrature and importance sampling.

Per arm a and seed s the mean difference to the reference is

    d_as = delta_a + x_as - x_0s,    x_as ~ N(0, tau_a^2),  tau_a^2 = sigma_a^2 + v_a,
    log sigma_a ~ (1 - eps) N(m, t^2) + eps Uniform,    m, t, eps integrated over a grid,

with v_a known (``data``) and delta_a free. Everything about the noise is in the deviations of d_as from their mean
over seeds. Given the reference's own deviations x_0 the arms are independent, so x_0 is drawn by importance sampling
(fixed quasi-random points: the same scores give the same result) and all the rest is summed over grids. The same
model serves two arms and forty; with one, x_0 integrates out by hand, and with v = 0 Student's paired t comes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import chdtri, logsumexp, ndtri
from scipy.stats import qmc

from Verl.statistics.data import Differences

GRID = 32  # values of sigma
CENTRES = 15  # values of m
SPREADS = (0.3, 0.6, 1.0, 1.6)  # values of t: arms alike to within 30 %, up to a factor of 5
OUTLYING = (0.05, 0.2)  # values of eps
POINTS = 1024  # quasi-random points per start of the proposal, shared out over the arms: few arms tell little of the reference
STARTS = (1.0 / 9.0, 1.0, 9.0)  # the reference as quiet or as noisy as that, relative to the arms
REFERENCE_OUTLYING = (
    0.15  # the same for the reference, whose noise is in every comparison: hardly shrunk to the others'
)
NODES = 4096  # posterior draws of (x_0, m, t, eps) that are kept, likewise
_TAIL = 5.0  # degrees of freedom of the proposal


@dataclass(frozen=True)
class Posterior:
    """Posterior of the noise.

    Args:
        variance_AG: tau_a^2 at the grid of sigma.
        reference_G: tau_0^2 there.
        joint_AGG: P(tau_a at G, tau_0 at G') for each arm.
        sigma_G: the grid of sigma, the seeds' std.
        arm_AG, base_G: marginal posteriors of sigma_a and sigma_0.
        effective: effective number of the importance-sampling points.
        arm_ANG, base_NG: equally weighted draws N of all that the arms share; given one of them sigma_a and sigma_0 are
            independent, with these weights on the grid. None with one arm.
    """

    variance_AG: np.ndarray
    reference_G: np.ndarray
    joint_AGG: np.ndarray
    sigma_G: np.ndarray
    arm_AG: np.ndarray
    base_G: np.ndarray
    effective: float
    arm_ANG: np.ndarray | None = None
    base_NG: np.ndarray | None = None


@lru_cache(maxsize=32)
def _points(count: int, dimensions: int) -> np.ndarray:
    """Quasi-random points of a multivariate t with unit scale, (count, dimensions)."""
    uniform = qmc.Sobol(dimensions + 1, scramble=True, rng=20).random(count)
    uniform = np.clip(uniform, 1e-9, 1.0 - 1e-9)
    return ndtri(uniform[:, :-1]) / np.sqrt(chdtri(_TAIL, uniform[:, -1:]) / _TAIL)


@lru_cache(maxsize=32)
def _contrasts(seeds: int) -> np.ndarray:
    """Orthonormal basis of the deviations from the mean, (seeds, seeds - 1): Helmert's."""
    basis = np.zeros((seeds, seeds - 1))
    for i in range(1, seeds):
        basis[:i, i - 1], basis[i, i - 1] = 1.0, -float(i)
        basis[:, i - 1] /= np.sqrt(i * (i + 1.0))
    return basis


def _squares(difference_AS: np.ndarray, used_AS: np.ndarray, base_MS: np.ndarray) -> np.ndarray:
    """Sum over the arm's seeds of (d_as + x_0s - mean)^2, shape (A, M)."""
    count_A = np.maximum(used_AS.sum(axis=1), 1)[:, None]
    centre_A = difference_AS.sum(axis=1, keepdims=True) / count_A
    own_AS = (difference_AS - centre_A) * used_AS
    mask_AS = used_AS.astype(float)
    total_AM = mask_AS @ base_MS.T
    return np.maximum(
        (own_AS**2).sum(axis=1, keepdims=True)
        + 2.0 * own_AS @ base_MS.T
        + mask_AS @ (base_MS**2).T
        - total_AM**2 / count_A,
        0.0,
    )


def _proposal(data: Differences, own_A: np.ndarray, start: float) -> tuple[np.ndarray, float]:
    """Where the reference's deviations lie, as weighted mean of what the arms say of them, and the std of that."""
    used_AS, seeds = data.used_AS, data.used_AS.shape[1]
    df_A = np.maximum(data.seeds_A - 1, 0)
    centre_A = data.difference_AS.sum(axis=1, keepdims=True) / np.maximum(data.seeds_A, 1)[:, None]
    observed_AS = -(data.difference_AS - centre_A) * used_AS
    informs_AS = used_AS & (df_A > 0)[:, None]
    base_S = np.zeros(seeds)
    plain = float((observed_AS**2).sum() / max(df_A.sum(), 1)) / 2.0
    for _ in range(8):
        square_A = _squares(data.difference_AS, used_AS, base_S[None, :])[:, 0]
        tau_A = np.maximum(own_A, (square_A + 0.5 * plain) / (df_A + 0.5))
        typical = float(np.median(tau_A[df_A > 0]))
        tau_0 = start * max(data.shared_sampling, (float(base_S @ base_S) + 2.0 * typical) / (seeds + 1.0))
        weight_AS = informs_AS / tau_A[:, None]
        # an arm's seeds tell of the deviations only up to their mean, which the present estimate fills in
        filled = (base_S[None, :] * used_AS).sum(axis=1, keepdims=True) / np.maximum(data.seeds_A, 1)[:, None]
        total_S = weight_AS.sum(axis=0) + 1.0 / tau_0
        base_S = (weight_AS * (observed_AS + filled)).sum(axis=0) / total_S
        base_S = base_S - base_S.mean()
    return base_S, float(np.sqrt(np.mean(1.0 / total_S)))


def _grid(data: Differences, own_A: np.ndarray) -> np.ndarray:
    """sigma from what is lost in the sampling noise to far beyond any deviation seen."""
    centre_A = data.difference_AS.sum(axis=1, keepdims=True) / np.maximum(data.seeds_A, 1)[:, None]
    deviation_AS = np.abs(data.difference_AS - centre_A) * data.used_AS
    noise = float(np.sqrt(np.median(own_A[data.seeds_A > 1])))
    largest = max(float(deviation_AS.max()), noise)
    low = 0.2 * noise if noise > 0.02 * largest else 0.004 * largest
    high = min(30.0 * largest, max(data.largest_std, 3.0 * largest))
    return np.geomspace(low, high, GRID)


def _priors(log_G: np.ndarray, outlying: tuple[float, ...] = OUTLYING) -> np.ndarray:
    """p(sigma on the grid | m, t, eps) for every hyperparameter, shape (H, G), each with the same prior weight."""
    centre = np.linspace(log_G[0], log_G[-1], CENTRES)
    above_CG = (log_G[None, :] >= centre[:, None] - 1e-9).astype(float)
    above_CG /= above_CG.sum(axis=1, keepdims=True)
    rows = []
    for spread in SPREADS:
        bell_CG = np.exp(-0.5 * ((log_G[None, :] - centre[:, None]) / spread) ** 2)
        bell_CG /= bell_CG.sum(axis=1, keepdims=True)
        rows += [(1.0 - share) * bell_CG + share * above_CG for share in outlying]
    return np.concatenate(rows)


def _draws(data: Differences, own_A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of the reference's deviations, (M, S), and the log density they were drawn from, (M,)."""
    seeds = data.used_AS.shape[1]
    count = 2 ** max(5, round(np.log2(POINTS / data.used_AS.shape[0])))
    basis, points = _contrasts(seeds), _points(count, seeds - 1)
    found = [_proposal(data, own_A, start) for start in STARTS]
    contrast_MC = np.concatenate([mean @ basis + 1.15 * scale * points for mean, scale in found])
    size = contrast_MC.shape[1]
    density = []
    for mean, scale in found:
        scale = 1.15 * scale
        distance_M = (((contrast_MC - mean @ basis) / scale) ** 2).sum(axis=1)
        density.append(-0.5 * (_TAIL + size) * np.log1p(distance_M / _TAIL) - size * np.log(scale))
    return contrast_MC @ basis.T, logsumexp(density, axis=0)


def _systematic(weight: np.ndarray, count: int) -> np.ndarray:
    """Indices of ``count`` draws from ``weight`` by systematic resampling with a fixed offset."""
    return np.searchsorted(np.cumsum(weight), (np.arange(count) + 0.5) / count * weight.sum())


def _one_arm(data: Differences, arm_G: np.ndarray, base_G: np.ndarray, prior_GG: np.ndarray) -> np.ndarray:
    """P(tau_1 at G, tau_0 at G') with one arm: x_0 integrates out, and the data know the sum of both variances."""
    difference_S = data.difference_AS[0, data.used_AS[0]]
    square = float(((difference_S - difference_S.mean()) ** 2).sum())
    total_GG = arm_G[:, None] + base_G
    log_GG = -0.5 * (difference_S.size - 1) * np.log(total_GG) - 0.5 * square / total_GG
    joint_GG = prior_GG * np.exp(log_GG - log_GG.max())
    return joint_GG / joint_GG.sum()


def posterior(data: Differences) -> Posterior:
    """The noise's posterior; the arms of ``data`` have at least one used seed, one of them at least two.

    Seeds that no arm uses must have been left out of ``data``.
    """
    own_A = np.maximum(data.sampling_A - data.shared_sampling, 0.1 * data.sampling_A)
    sigma_G = _grid(data, own_A)
    variance_AG, reference_G = sigma_G**2 + own_A[:, None], sigma_G**2 + data.shared_sampling
    prior_HG = _priors(np.log(sigma_G))
    base_prior_HG = _priors(np.log(sigma_G), (REFERENCE_OUTLYING,) * len(OUTLYING))
    if data.used_AS.shape[0] == 1:
        joint_GG = _one_arm(data, variance_AG[0], reference_G, prior_HG.T @ base_prior_HG)
        arm_AG, base_G = joint_GG.sum(axis=1)[None, :], joint_GG.sum(axis=0)
        return Posterior(variance_AG, reference_G, joint_GG[None], sigma_G, arm_AG, base_G, np.inf)
    base_MS, log_density_M = _draws(data, own_A)
    df_A = np.maximum(data.seeds_A - 1, 0)[:, None, None]
    square_AM = _squares(data.difference_AS, data.used_AS, base_MS)
    log_AMG = -0.5 * df_A * np.log(variance_AG)[:, None, :] - 0.5 * square_AM[:, :, None] / variance_AG[:, None, :]
    top_AM = log_AMG.max(axis=2)
    like_AMG = np.exp(log_AMG - top_AM[:, :, None])
    own_square_M = (base_MS**2).sum(axis=1)
    log_MG = -0.5 * (base_MS.shape[1] - 1) * np.log(reference_G) - 0.5 * own_square_M[:, None] / reference_G
    top_M = log_MG.max(axis=1)
    like_MG = np.exp(log_MG - top_M[:, None])
    evidence_AMH, evidence_MH = like_AMG @ prior_HG.T, like_MG @ base_prior_HG.T
    with np.errstate(divide="ignore"):  # a prior far from an arm's noise gives it no chance at all
        log_MH = np.log(evidence_AMH).sum(axis=0) + np.log(evidence_MH)
    log_MH += (top_AM.sum(axis=0) + top_M - log_density_M)[:, None]
    weight_MH = np.exp(log_MH - log_MH.max())
    weight_M = weight_MH.sum(axis=1)
    arms = data.used_AS.shape[0]
    nodes = max(256, NODES // arms)
    kept = _systematic(weight_MH.ravel(), nodes)
    m, h = np.divmod(kept, prior_HG.shape[0])
    arm_ANG = like_AMG[:, m] * prior_HG[h] / evidence_AMH[:, m, h][:, :, None]
    base_NG = like_MG[m] * base_prior_HG[h] / evidence_MH[m, h][:, None]
    joint_AGG = np.matmul(arm_ANG.transpose(0, 2, 1), base_NG) / nodes
    effective = float(weight_M.sum() ** 2 / (weight_M**2).sum())
    return Posterior(
        variance_AG, reference_G, joint_AGG, sigma_G, joint_AGG.sum(axis=2), base_NG.mean(axis=0), effective,
        arm_ANG, base_NG,
    )  # fmt: skip
