"""A saturating curve through a learning curve: where it ends, how early it gets there, and whether the data can tell.

    R(x) = R0 + (A - R0) / (1 + (M / x)^B),      R(0) = R0

with x the steps or another budget (arXiv 2510.13786, equation 1, there with x in GPU hours): a sigmoid in log x. A is the
asymptote, M the midpoint, at which half of the curve's own gain is reached, and B the exponent: at the midpoint B / 4 of the
gain comes with each factor of e in x. "Ends higher" is a larger A, "learns faster" a smaller M.

Least squares through the mean over seeds. What a parameter owes to each seed and point stands in ``influence``, a table like
one of scores by seed and question, from which its noise is judged as that of scores is (docs/statistics.md).
Shapes: ``_S`` seeds, ``_X`` points of the curve, ``_G`` nodes of the grid over midpoint and exponent, ``_C`` candidates of A.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FEWEST = 6  # points after the start; four parameters through fewer leave nothing to see the noise by
_EXPONENTS = (0.5, 8.0)
_MIDPOINTS = 48  # nodes of the grid, from a third of the first budget to ten times the last
_WIDEST = 1 / 3  # of the gain; an interval of the asymptote that is wider says nothing about the end
_REACHED = 2 / 3  # of the gain at the last point; an end that is further off is extrapolated
_REACHED_AT_LIMIT = 0.95  # where the best asymptote is the limit itself, which the data then did not choose
_FALL = 0.35  # of the largest rise; a curve that loses more after its peak does not saturate


@dataclass(frozen=True)
class Fit:
    """A saturating curve and what the seeds say of its parameters.

    Args:
        start, asymptote, midpoint, exponent: R0, A, M and B; the midpoint in the unit of x.
        low, high: profile interval (95 %) of the asymptote from the points' scatter about the curve.
        noise: standard deviation of the points of the mean curve about the fit.
        asymptote_SX, log_midpoint_SX, log_exponent_SX: ``influence`` of each seed and point; their mean is the parameter.
    """

    start: float
    asymptote: float
    midpoint: float
    exponent: float
    low: float
    high: float
    noise: float
    asymptote_SX: np.ndarray
    log_midpoint_SX: np.ndarray
    log_exponent_SX: np.ndarray

    def at(self, x) -> np.ndarray:
        """The curve at budgets x >= 0."""
        share = _share(np.asarray(x, dtype=float), np.log(self.midpoint), self.exponent)
        return self.start + (self.asymptote - self.start) * share


@dataclass(frozen=True)
class Refusal:
    """Why the data carry no fit, in words that complete "not fitted: ..."."""

    reason: str


def _share(x_X: np.ndarray, log_midpoint, exponent) -> np.ndarray:
    """The share of the gain that is reached, 0 at x = 0; parameters may have leading axes."""
    with np.errstate(divide="ignore", over="ignore"):
        return 1.0 / (1.0 + np.exp(np.asarray(exponent) * (np.asarray(log_midpoint) - np.log(x_X))))


def _f_critical(confidence: float, one: int, other: int) -> float:
    """The F with P(F <= it) = ``confidence``."""
    from scipy.special import fdtri  # on first use: a figure without a fit need not wait for scipy

    return float(fdtri(one, other, confidence))


class _Grid:
    """Every pair of midpoint and exponent; given one, R0 and A are a linear regression."""

    def __init__(self, x_X: np.ndarray, limits: tuple[float, float] | None):
        spent = x_X[x_X > 0]
        self.edges = np.log(spent[0] / 3.0), np.log(10.0 * spent[-1])
        log_m, b = np.meshgrid(
            np.linspace(*self.edges, _MIDPOINTS), np.geomspace(*_EXPONENTS, _MIDPOINTS // 2), indexing="ij"
        )
        self.x_X, self.limits, self.log_m_G, self.b_G = x_X, limits, log_m.ravel(), b.ravel()
        self.g_GX = _share(x_X, self.log_m_G[:, None], self.b_G[:, None])
        h_GX = 1.0 - self.g_GX
        self.gg_G, self.gh_G, self.hh_G = ((a * b).sum(axis=1) for a, b in ((self.g_GX,) * 2, (self.g_GX, h_GX), (h_GX,) * 2))

    def squares(self, y_X: np.ndarray, a_C: np.ndarray) -> np.ndarray:
        """Smallest sum of squares for each candidate of A at each node, shape (C, G)."""
        yg_G = self.g_GX @ y_X
        rh_CG = (y_X.sum() - yg_G) - a_C[:, None] * self.gh_G
        rr_CG = y_X @ y_X - 2.0 * a_C[:, None] * yg_G + a_C[:, None] ** 2 * self.gg_G
        r0_CG = rh_CG / np.maximum(self.hh_G, 1e-12)
        if self.limits is not None:
            r0_CG = np.clip(r0_CG, *self.limits)
        return rr_CG - 2.0 * r0_CG * rh_CG + r0_CG**2 * self.hh_G

    def candidates(self, y_X: np.ndarray) -> np.ndarray:
        """Asymptotes to try: all shares, else three spans beyond what was seen."""
        if self.limits is not None:
            return np.linspace(*self.limits, 201)
        span = max(float(np.ptp(y_X)), 1e-12)
        return np.linspace(y_X.min() - span, y_X.max() + 3.0 * span, 201)

    def best(self, y_X: np.ndarray) -> np.ndarray:
        """R0, A, log M and log B of least squares: the best node, improved from there."""
        from scipy.optimize import least_squares

        a_C = self.candidates(y_X)
        c, node = np.unravel_index(int(self.squares(y_X, a_C).argmin()), (a_C.size, self.b_G.size))
        g_X = self.g_GX[node]
        r0 = float((y_X - a_C[c] * g_X) @ (1.0 - g_X) / max(self.hh_G[node], 1e-12))
        low, high = self.limits if self.limits is not None else (-np.inf, np.inf)
        bounds = np.array([(low, high), (low, high), self.edges, np.log(_EXPONENTS)]).T
        first = np.clip([r0, a_C[c], self.log_m_G[node], np.log(self.b_G[node])], bounds[0] + 1e-9, bounds[1] - 1e-9)

        def residuals(p):
            return p[0] + (p[1] - p[0]) * _share(self.x_X, p[2], np.exp(p[3])) - y_X

        return least_squares(residuals, first, bounds=bounds, x_scale=(0.1, 0.1, 0.5, 0.5), max_nfev=60).x

    def profile(self, y_X: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
        """The asymptotes that fit nearly as well as the best one, by the F test on the sum of squares."""
        a_C = self.candidates(y_X)
        best_C = self.squares(y_X, a_C).min(axis=1)
        free = y_X.size - 4
        kept = a_C[best_C <= best_C.min() * (1.0 + _f_critical(confidence, 1, free) / free) + 1e-12]
        return float(kept[0]), float(kept[-1])


def influence(x_X: np.ndarray, y_SX: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """What each seed and point say of R0, A, log M and log B, shape (4, S, X); the mean over both is the parameter.

    The fit to first order: parameters + X W_px (y_sx - fitted_x) with W = (J^T J)^-1 J^T and J the curve's derivatives at
    the X points. Of a mean these would be the values themselves.
    """
    r0, a, log_m, log_b = parameters
    share_X = _share(x_X, log_m, np.exp(log_b))
    with np.errstate(divide="ignore"):
        distance_X = np.where(x_X > 0, log_m - np.log(x_X), 0.0)
    slope_X = -(a - r0) * share_X * (1.0 - share_X) * np.exp(log_b)
    derivatives_X4 = np.column_stack([1.0 - share_X, share_X, slope_X, slope_X * distance_X])
    weight_4X = np.linalg.pinv(derivatives_X4, rcond=1e-8)
    fitted_X = r0 + (a - r0) * share_X
    own = x_X.size * weight_4X[:, None, :] * (y_SX - fitted_X)
    return parameters[:, None, None] + own - own.mean(axis=(1, 2), keepdims=True)


def _peak_and_fall(y_X: np.ndarray) -> tuple[int, float, float]:
    """Where the curve, averaged over a fifth of its points, is highest, its rise to there, and what it loses after."""
    width = max(2, y_X.size // 5)
    smooth = np.convolve(y_X, np.ones(width) / width, mode="valid")
    peak = int(smooth.argmax())
    return peak + width // 2, float(smooth[peak] - smooth[: peak + 1].min()), float(smooth[peak] - smooth[-1])


def _no_rise(x_X, y_X, curve_X, smallest_gain: float) -> str | None:
    """Why there is nothing that saturates: no change beyond the points' noise, a fall, or a rise and a fall."""
    free = y_X.size - 4
    rest, flat = float(((y_X - curve_X) ** 2).sum()), float(((y_X - y_X.mean()) ** 2).sum())
    gain = float(curve_X[-1] - curve_X[0])
    peak, rise, fall = _peak_and_fall(y_X)
    noise = np.sqrt(rest / free) / np.sqrt(max(2, y_X.size // 5))
    if rise > smallest_gain and fall > max(_FALL * rise, 4.0 * noise):
        return f"it rises until {x_X[peak]:,.4g} and then loses {fall:.3g} of {rise:.3g}: it does not saturate"
    if abs(gain) < smallest_gain or flat - rest < 3.0 * _f_critical(0.99, 3, free) * rest / free:
        return f"it does not rise beyond its noise ({gain:+.3f} over the whole curve)"
    return f"it falls ({gain:+.3f} over the whole curve)" if gain < 0 else None


def fit_curve(
    x_X, y_SX, *, limits: tuple[float, float] | None = (0.0, 1.0), smallest_gain: float = 0.02
) -> Fit | Refusal:
    """Fit a saturating curve through the mean of several seeds' curves.

    Args:
        x_X: budgets at which every seed was evaluated, rising, 0 for the evaluation before training.
        y_SX: the seeds' values there.
        limits: what the values cannot leave, 0 and 1 for shares; None for any numbers.
        smallest_gain: a smaller change over the whole curve is none.
    Returns:
        the fit, or why the data carry none: too few points, no rise, a fall, an asymptote or a midpoint that they leave open.
    Raises:
        ValueError: shapes that don't match, budgets that don't rise, values that are not finite.
    """
    x_X, y_SX = np.asarray(x_X, dtype=float), np.atleast_2d(np.asarray(y_SX, dtype=float))
    if y_SX.shape[1:] != x_X.shape or not y_SX.size or not np.isfinite(y_SX).all():
        raise ValueError(f"need finite values, seeds x points: got shapes {y_SX.shape} and {x_X.shape}")
    if (np.diff(x_X) <= 0).any() or x_X[0] < 0:
        raise ValueError("budgets must rise, from 0 or more")
    spent = x_X[x_X > 0]
    if spent.size < FEWEST:
        count = f"{spent.size} point{'s' * (spent.size != 1)}"
        return Refusal(f"it has {count} after the start, and four parameters need at least {FEWEST}")
    grid, y_X = _Grid(x_X, limits), y_SX.mean(axis=0)
    whole = grid.best(y_X)
    r0, a, log_m, log_b = whole
    curve_X = r0 + (a - r0) * _share(x_X, log_m, np.exp(log_b))
    if (reason := _no_rise(x_X, y_X, curve_X, smallest_gain)) is not None:
        return Refusal(reason)
    low, high = grid.profile(y_X)
    low, high = min(low, a), max(high, a)
    reached = float((curve_X[-1] - r0) / (a - r0))
    at_limit = limits is not None and a > limits[1] - 1e-3
    if high - low > _WIDEST * (a - r0) or (at_limit and reached < _REACHED_AT_LIMIT):
        return Refusal(f"its end is open: asymptotes from {low:.3g} to {high:.3g} fit as well")
    if reached < _REACHED:
        return Refusal(f"its end is open: at the last point {reached:.0%} of the gain to an asymptote of {a:.3g} is reached")
    if np.exp(log_m) < spent[0]:
        return Refusal(f"half of its gain is there before {spent[0]:,.4g}, its first point: its midpoint is unknown")
    noise = float(np.sqrt(((y_X - curve_X) ** 2).sum() / (y_X.size - 4)))
    own = influence(x_X, y_SX, whole)[1:]
    return Fit(float(r0), float(a), float(np.exp(log_m)), float(np.exp(log_b)), low, high, noise, *own)
