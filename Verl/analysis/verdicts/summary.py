"""The table of the study: start, final, best, gain and marginal gain of every arm, with the verdict in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from Verl.analysis.runs.files import TEST
from Verl.analysis.runs.table import Runs, last_scores
from Verl.analysis.stats import seed_interval
from Verl.analysis.verdicts.compare import gains, verdicts
from Verl.design.declared import declared

NOTE = (
    "Test Pass@1, mean over seeds. Final: last evaluation, 95 % t interval over seeds. Best: the highest mean over the "
    "evaluations, picked on test and so too high. Gain: final minus start. Marginal gain: final minus the base line's "
    "final, over the same seeds (and the same questions where the evaluations are stored), 95 % interval; p: Holm; above 0.05 "
    "it says that a difference is not shown, not that there is none. Arms with identical logs are one comparison."
)


def _row(table: pd.DataFrame, pair: str, arm: str, marginal, gain, same_as: str) -> dict | None:
    rows = table[(table["pair"] == pair) & (table["arm"] == arm)]
    at_the_end = last_scores(rows)
    if at_the_end is None:
        return None
    last, final = at_the_end
    means = rows.groupby("step")[TEST].mean().dropna()
    low, high = seed_interval(final)[1:] if len(final) > 1 else (np.nan, np.nan)
    row = {"pair": pair, "arm": arm, "seeds": len(final), "last_step": last, "start": means.get(0, np.nan)}
    row |= {"final": final.mean(), "final_low": low, "final_high": high, "best": means.max()}
    row |= {"best_step": int(means.idxmax()), "gain": row["final"] - row["start"]}
    for name, comparison in (("gain", gain), ("marginal_gain", marginal)):
        tested = comparison is not None and comparison.result is not None
        if name == "marginal_gain":
            row[name] = comparison.result.difference if tested else np.nan
        row[f"{name}_low"] = comparison.result.low if tested else np.nan
        row[f"{name}_high"] = comparison.result.high if tested else np.nan
        row[f"{name}_p"] = comparison.adjusted_p if tested else np.nan
    row["same_logs_as"] = same_as
    row["verdict"] = marginal.sentence if marginal is not None else gain.sentence
    return row


def summary_table(
    runs: Runs,
    arms: Sequence[str] | None = None,
    pairs: Sequence[str] | None = None,
    result_dir: Path | str | None = None,
    base_line: str | None = None,
) -> pd.DataFrame:
    """One row per pair and arm with a test evaluation; the columns of ``_row``, the base line first in its pair."""
    base_line = base_line or declared().base_line
    table = runs.table
    arms = sorted(table["arm"].unique()) if arms is None else list(arms)
    arms = sorted(arms, key=lambda arm: arm != base_line)
    pairs = sorted(table["pair"].unique()) if pairs is None else list(pairs)
    marginal = {(c.pair, c.arm): c for c in verdicts(runs, arms, base_line, pairs, result_dir)}
    gain = {(c.pair, c.arm): c for c in gains(runs, arms, pairs, result_dir)}
    keys = [(pair, arm) for pair in pairs for arm in arms]
    rows = [_row(table, *key, marginal.get(key), gain[key], runs.same_as.get(key[0], {}).get(key[1], "")) for key in keys]
    return pd.DataFrame([row for row in rows if row is not None])


def _cell(value: float, low: float, high: float, signed: bool = False) -> str:
    """A number with its interval; "-" where there is none."""
    if not np.isfinite(value):
        return "-"
    form = "{:+.3f}" if signed else "{:.3f}"
    text = form.format(value)
    return f"{text} [{form.format(low)}, {form.format(high)}]" if np.isfinite(low) else text


def to_markdown(summary: pd.DataFrame) -> str:
    """The table for a reader, its sentences below it."""
    head = ["pair", "arm", "seeds", "start", "final", "best (step)", "gain", "marginal gain", "p"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in summary.to_dict("records"):
        p = row["marginal_gain_p"]
        cells = [
            row["pair"],
            row["arm"],
            str(row["seeds"]),
            _cell(row["start"], np.nan, np.nan),
            _cell(row["final"], row["final_low"], row["final_high"]),
            f"{row['best']:.3f} ({row['best_step']})",
            _cell(row["gain"], row["gain_low"], row["gain_high"], signed=True),
            _cell(row["marginal_gain"], row["marginal_gain_low"], row["marginal_gain_high"], signed=True),
            "-" if not np.isfinite(p) else f"{p:.3f}" if p >= 0.001 else "<0.001",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    sentences = [f"- {sentence}" for sentence in summary["verdict"]]
    return "\n".join([*lines, "", NOTE, "", *sentences]) + "\n"
