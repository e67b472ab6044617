"""The table of the study: start, final, best, gain and marginal gain of every arm, with the verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from Verl.analysis.runs.run_file import TEST
from Verl.analysis.runs.table import Runs, last_scores
from Verl.analysis.stats import seed_interval
from Verl.analysis.verdicts.compare import gains, study_verdicts, verdicts
from Verl.analysis.verdicts.comparison import Comparison
from Verl.analysis.verdicts.judge import MARGIN, Key, Verdict
from Verl.analysis.verdicts.text import verdict_words
from Verl.design.declared import declared
from Verl.trainer.benchmarks import SPLITS, evaluated_sets

BENCHMARK = "benchmark_"  # begins the names of a benchmark's columns


def note(margin: float) -> str:
    """What the columns are."""
    return (
        "Test Pass@1, mean over seeds. Final: last evaluation, 95 % t interval over seeds. Best: the highest mean over the "
        "evaluations, picked on test and so too high. Gain: the last evaluation minus the arm's own before training. "
        "Marginal gain: minus the base line's last, over the same seeds (and the same questions and all their answers, where "
        "the evaluations are stored). Their intervals are simultaneous, 95 % for all arms of a pair together, and p is "
        "adjusted for all of them (docs/statistics.md). Verdict on the marginal gain: better or worse, where the interval "
        f"leaves out 0; equivalent, where it lies within ±{margin:g}; else undecided: a difference is not "
        "shown, nor that there is none. t: Holm's p of the plain paired t, which takes an arm's noise from its own seeds "
        "alone, as a check. Arms with identical logs are one comparison."
    )


def _columns(name: str, one: Comparison | None) -> dict:
    """The columns of one comparison; NaN and empty where nothing can be said."""
    judged = one.judged.found if one is not None and one.known else None
    found = {f"{name}_{field}": getattr(judged, field, np.nan) for field in ("low", "high", "p")}
    found[f"{name}_verdict"] = (one.verdict or "") if one is not None else ""
    found[f"{name}_t_p"] = one.adjusted_p if one is not None and one.adjusted_p is not None else np.nan
    return found


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
    row |= _columns("gain", gain)
    judged = marginal is not None and marginal.judged is not None
    row["marginal_gain"] = marginal.judged.found.difference if judged else np.nan
    row |= _columns("marginal_gain", marginal)
    row["disputed"] = marginal is not None and marginal.disputed()
    row["verdict"] = verdict_words(marginal) if marginal is not None and marginal.verdict else ""
    row |= _benchmark_columns(rows)
    row["same_logs_as"] = same_as
    row["sentence"] = marginal.sentence if marginal is not None else gain.sentence
    return row


def benchmarks_of(table: pd.DataFrame) -> list[str]:
    """The benchmarks that any run logs (`data.benchmarks`), by name."""
    return [name for name in evaluated_sets(table.columns) if name not in SPLITS]


def _benchmark_columns(rows: pd.DataFrame) -> dict[str, float]:
    """Of each benchmark: the last evaluation's mean over seeds with its 95 % t interval."""
    found = {}
    for name in benchmarks_of(rows):
        at_the_end = last_scores(rows, f"eval/{name}/pass@1")
        values = np.array([]) if at_the_end is None else at_the_end[1]
        low, high = seed_interval(values)[1:] if len(values) > 1 else (np.nan, np.nan)
        mean = values.mean() if len(values) else np.nan
        found |= {f"{BENCHMARK}{name}": mean, f"{BENCHMARK}{name}_low": low, f"{BENCHMARK}{name}_high": high}
    return found


def summary_table(
    runs: Runs,
    arms: Sequence[str] | None = None,
    pairs: Sequence[str] | None = None,
    result_dir: Path | str | None = None,
    base_line: str | None = None,
    margin: float = MARGIN,
    judged: Mapping[Key, Verdict] | None = None,
) -> pd.DataFrame:
    """One row per pair and arm with a test evaluation; the columns of ``_row``, the base line first in its pair.

    Args:
        margin: the largest difference that does not matter. judged: from ``study_verdicts``, worked out if not given.
    """
    base_line = base_line or declared().base_line
    table = runs.table
    arms = sorted(table["arm"].unique()) if arms is None else list(arms)
    arms = sorted(arms, key=lambda arm: arm != base_line)
    pairs = sorted(table["pair"].unique()) if pairs is None else list(pairs)
    if judged is None:
        judged = study_verdicts(runs, result_dir, margin=margin, base_line=base_line)
    marginal = {(c.pair, c.arm): c for c in verdicts(runs, arms, base_line, pairs, result_dir, judged=judged)}
    gain = {(c.pair, c.arm): c for c in gains(runs, arms, pairs, result_dir, judged=judged)}
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


def _p_cell(p: float) -> str:
    return "-" if not np.isfinite(p) else f"{p:.3f}" if p >= 0.001 else "<0.001"


def to_markdown(summary: pd.DataFrame, margin: float = MARGIN) -> str:
    """The table for a reader, its sentences below it."""
    head = ["pair", "arm", "seeds", "start", "final", "best (step)", "gain", "marginal gain", "p", "verdict", "t (Holm)"]
    ends = ("_low", "_high")
    benchmarks = [name for name in summary.columns if name.startswith(BENCHMARK) and not name.endswith(ends)]
    head += [name.removeprefix(BENCHMARK) for name in benchmarks]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in summary.to_dict("records"):
        cells = [
            row["pair"],
            row["arm"],
            str(row["seeds"]),
            _cell(row["start"], np.nan, np.nan),
            _cell(row["final"], row["final_low"], row["final_high"]),
            f"{row['best']:.3f} ({row['best_step']})",
            _cell(row["gain"], row["gain_low"], row["gain_high"], signed=True),
            _cell(row["marginal_gain"], row["marginal_gain_low"], row["marginal_gain_high"], signed=True),
            _p_cell(row["marginal_gain_p"]),
            row["verdict"] or "-",
            _p_cell(row["marginal_gain_t_p"]) + " (disagrees)" * bool(row["disputed"]),
            *(_cell(row[name], *(row[f"{name}{end}"] for end in ends)) for name in benchmarks),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    sentences = [f"- {sentence}" for sentence in summary["sentence"]]
    return "\n".join([*lines, "", note(margin), "", *sentences]) + "\n"
