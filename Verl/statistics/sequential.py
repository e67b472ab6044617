"""Add seeds until it is decided, with error rates that hold although one looked in between.

Group-sequential bounds by error spending (Lan and DeMets 1983; Jennison and Turnbull 2000, chapters 2, 7 and 13): at
look k, after S_k of at most S_max seeds, the share (S_k / S_max)^rho of the error has been spent. The nominal level of
each look comes from the joint normal distribution of the looks, whose information grows with the seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from Verl.statistics.compare import ArmComparison, compare_at

_HALF = 12.0  # the grid of the recursion reaches this many standard deviations
_STEPS = 1201


def look_levels(looks: Sequence[int], *, alpha: float = 0.05, rho: float = 1.5) -> np.ndarray:
    """Two-sided nominal levels for looks after ``looks`` seeds (increasing); together they spend ``alpha``.

    rho 1 spends evenly (near Pocock), 3 late (near O'Brien and Fleming). By Armitage, McPherson and Rowe's recursion:
    the density of the score process that has not crossed before, convolved with the next seeds' increment.
    """
    seeds = np.asarray(looks, dtype=float)
    if seeds.ndim != 1 or seeds.size == 0 or seeds[0] < 1 or (np.diff(seeds) <= 0).any():
        raise ValueError(f"looks must be increasing numbers of seeds, got {list(looks)}")
    if not 0.0 < alpha < 1.0 or rho <= 0.0:
        raise ValueError(f"need 0 < alpha < 1 and rho > 0, got {alpha} and {rho}")
    time = seeds / seeds[-1]
    spend = alpha * np.diff(np.r_[0.0, time**rho])
    x = np.linspace(-_HALF, _HALF, _STEPS)
    step, levels = x[1] - x[0], []
    density = None
    for k, t in enumerate(time):
        if density is None:
            density = np.exp(-0.5 * x**2 / t) / np.sqrt(2.0 * np.pi * t)
        else:
            wide = t - time[k - 1]
            kernel = np.exp(-0.5 * (x[:, None] - x[None, :]) ** 2 / wide) / np.sqrt(2.0 * np.pi * wide)
            density = kernel @ density * step
        # the boundary where the mass beyond it is this look's share, between grid points by interpolation
        outside = 2.0 * np.cumsum(density[::-1])[::-1] * step - density * step
        boundary = float(np.interp(-spend[k], -outside[x >= 0.0], x[x >= 0.0]))
        levels.append(2.0 * float(ndtr(-boundary / np.sqrt(t))))
        inside = np.clip((boundary - np.abs(x)) / step + 0.5, 0.0, 1.0)
        density = density * inside
    return np.array(levels)


@dataclass(frozen=True)
class SeedPlan:
    """How seeds are added.

    Args:
        looks: numbers of seeds after which one looks, increasing; the last is the most that is ever run.
        comparisons: arms that are compared with the reference, in the whole study.
        alpha: of the whole study, over all looks. margin: for "equivalent"; None for none.
        rho: of the error spending. futility: an arm stops undecided when the chance that the last look decides it
            falls under this; 0 never stops so. Stopping so cannot make an error of the other kind.
    """

    looks: tuple[int, ...]
    comparisons: int
    alpha: float = 0.05
    margin: float | None = None
    rho: float = 1.5
    futility: float = 0.1

    def levels(self) -> np.ndarray:
        """alpha of ``compare_with`` at each look.

        The recursion runs at one comparison's share of alpha (Sidak): rare crossings repeat less often by chance at
        several looks than common ones, so that the whole family's alpha would give bounds that are too wide open.
        """
        own = 1.0 - (1.0 - self.alpha) ** (1.0 / max(1, self.comparisons))
        return self.alpha * look_levels(self.looks, alpha=own, rho=self.rho) / own


@dataclass(frozen=True)
class Decision:
    """An arm after a look.

    Args:
        verdict: as of ``compare_with``; final where ``stops``. stops: whether no more seeds are to be run.
        reason: in words, for the table. seeds: at the look that decided, or so far. comparison: at that look.
    """

    verdict: str
    stops: bool
    reason: str
    seeds: int
    comparison: ArmComparison


def _hope(now: ArmComparison, last: ArmComparison, seeds: int, plan: SeedPlan) -> float:
    """Chance that the last look decides, if the difference seen is the true one give or take what is not known yet.

    ``last``: the comparison at the last look's level on today's seeds; its width shrinks with the root of the seeds.
    """
    final = plan.looks[-1]
    if not np.isfinite(last.high) or seeds >= final:
        return 0.0 if seeds >= final else 1.0
    half = 0.5 * (last.high - last.low) * np.sqrt(seeds / final)
    # from the width at a family's level to a standard error: Sidak's normal quantile (too small an error is cautious
    # here in neither direction; it only tunes when one gives up)
    critical = -ndtri(0.5 * (1.0 - (1.0 - plan.alpha) ** (1.0 / max(1, plan.comparisons))))
    error_now = 0.5 * (last.high - last.low) / critical
    spread = error_now * np.sqrt(1.0 - seeds / final)  # of the final mean difference, given today's
    beyond = ndtr((now.difference - half) / spread) + ndtr((-now.difference - half) / spread)
    inside = 0.0
    if plan.margin is not None and half < plan.margin:
        room = plan.margin - half
        inside = ndtr((room - now.difference) / spread) - ndtr((-room - now.difference) / spread)
    return float(min(1.0, beyond + inside))


def decide(
    scores: Mapping[str, object], reference: str, plan: SeedPlan, earlier: Mapping[str, Decision] | None = None
) -> dict[str, Decision]:
    """Judge a study at a look: which arms are decided, which go on.

    Args:
        scores: all scores so far, stopped arms with the seeds that they have, as for ``compare_with``.
        plan: fixed before the first look.
        earlier: what this function returned at the look before; decided arms keep their decision. They stay in the
            family, so that a decision is never paid for by the others.
    Returns:
        arm -> Decision. The reference needs more seeds as long as any arm goes on.
    Raises:
        ValueError: an arm that goes on has a number of seeds that is no look of the plan.
    """
    earlier = earlier or {}
    stopped = {name: one for name, one in earlier.items() if one.stops}
    going = [name for name in scores if name != reference and name not in stopped]
    if not going:
        return dict(stopped)
    if len(scores) - 1 > plan.comparisons:
        raise ValueError(f"the plan has {plan.comparisons} comparisons, the scores {len(scores) - 1}")
    levels = plan.levels()
    at_level = compare_at(scores, reference, margin=plan.margin, alphas=levels.tolist())
    probe = at_level[-1]
    found: dict[str, Decision] = {}
    for name in scores:
        if name == reference:
            continue
        if name in stopped:
            found[name] = stopped[name]
            continue
        seeds = probe[name].seeds
        if seeds not in plan.looks:
            raise ValueError(f"{name!r} has {seeds} seed(s) in common with {reference!r}; the looks are {plan.looks}")
        now = at_level[plan.looks.index(seeds)][name]
        if now.verdict != "undecided":
            found[name] = Decision(now.verdict, True, f"{now.verdict} after {seeds} seeds", seeds, now)
        elif seeds == plan.looks[-1]:
            found[name] = Decision("undecided", True, f"undecided after all {seeds} seeds", seeds, now)
        else:
            hope = _hope(now, probe[name], seeds, plan)
            stops = hope < plan.futility
            why = f"the last look would decide it with chance {hope:.2f}"
            reason = f"stopped undecided after {seeds} seeds: {why}" if stops else f"goes on after {seeds} seeds: {why}"
            found[name] = Decision("undecided", stops, reason, seeds, now)
    return found
