"""Any metric of the runs' jsonl in place of Pass@1: `--metric <key> ...` of every plot script.

A figure and a table of another metric have its key in their names and stand beside those of Pass@1. They come without
verdicts: those are about test Pass@1, whose answers can be paired question by question.
"""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from Verl.analysis.figures.curves import Panel
from Verl.analysis.runs.run_file import LEDGER
from Verl.analysis.runs.table import Runs, last_scores
from Verl.analysis.stats import seed_interval

_LABELS = {
    "train/reward_mean": "mean reward",
    "train/pass@1": "training Pass@1",
    "train/response_length_mean": "response length (tokens)",
    "response_length/mean": "response length (tokens)",
    "actor/kl_loss": "KL to the reference",
    "actor/entropy": "entropy",
    "actor/grad_norm": "gradient norm",
    "train/constant_groups": "constant groups",
    "train/zero_advantage": "responses of advantage 0",
    "timing_s/step": "seconds a step",
}
_LABEL_WIDTH = 24  # characters that fit beside a panel
_SPARSE = 0.5  # of the steps; a metric logged less often is said to be


class Watched:
    """Which metrics to read: those of the figures and those asked for; notes the names of all that pass by."""

    def __init__(self, metrics: Sequence[str], needed: Callable[[str], bool]):
        self.metrics, self.needed = frozenset(metrics), needed
        self.seen: set[str] = set(LEDGER.values())  # worked out where a log has no ledger

    def __call__(self, key: str) -> bool:
        self.seen.add(key)
        return key in self.metrics or self.needed(key)

    def unknown(self, where: str) -> str | None:
        """A sentence on the first metric that no run has, with the nearest names; None if there is none."""
        for metric in sorted(self.metrics - self.seen):
            near = nearest(metric, self.seen)
            hint = f"the nearest are {', '.join(near)}" if near else "every line of a run's jsonl has the names"
            return f"--metric {metric}: none of the runs in {where} logs it; {hint}"
        return None


def nearest(metric: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """The known keys most like a mistyped one: those that share a part with it first, then those spelled alike."""
    known, word = sorted(known), metric.lower()
    parts = {part for part in re.split(r"[/_@]", word) if len(part) > 2}
    alike = difflib.get_close_matches(word, known, n=limit, cutoff=0.6)
    inside = [key for key in known if word in key.lower() or key.rsplit("/", 1)[-1] == word.rsplit("/", 1)[-1]]
    shared = sorted(known, key=lambda key: -len(parts & set(re.split(r"[/_@]", key.lower()))))
    shared = [key for key in shared if parts & set(re.split(r"[/_@]", key.lower()))]
    return list(dict.fromkeys([*alike, *inside, *shared]))[:limit]


def panel_of(metric: str) -> Panel:
    """How a metric is drawn. Shares of right answers end at 0 and 1; of anything else nothing is assumed."""
    label = "\n".join(textwrap.wrap(label_of(metric), _LABEL_WIDTH, break_on_hyphens=False))
    return Panel(label, (metric,), metric, share=bool(re.search(r"/pass@\d+$", metric)))


def label_of(metric: str) -> str:
    """A metric in a reader's words: ``eval/test/format`` is "test format", ``actor/ppo_kl`` "actor: ppo kl"."""
    if metric in _LABELS:
        return _LABELS[metric]
    words = metric.removeprefix("eval/") if metric.startswith("eval/") else metric.replace("/", ": ")
    return words.replace("/", " ").replace("_", " ").replace("pass@1", "Pass@1")


def file_part(metric: str) -> str:
    """A metric as part of a file's name: ``response_length/mean`` is response_length-mean."""
    return re.sub(r"[^A-Za-z0-9_.@=+-]", "-", metric)


def rarely_logged(table: pd.DataFrame, arms: Mapping[str, Sequence[str]], metric: str) -> str:
    """A note on a metric that most steps do not have; else empty."""
    rows = table[table["pair"].isin(list(arms)) & table["arm"].isin({arm for of_pair in arms.values() for arm in of_pair})]
    logged = rows[rows[metric].notna()]
    rows = rows[rows["run"].isin(logged["run"])]
    have, all_steps = logged["step"].nunique(), rows["step"].nunique()
    if logged.empty or have > _SPARSE * all_steps:
        return ""
    what = "evaluations only" if metric.startswith("eval/") else "some steps only"
    return f"{metric} is logged at {what}: {have} of {all_steps} steps."


def ends(runs: Runs, metric: str, arms: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Where each arm that logs the metric begins and ends: mean over seeds at the first and the last step that has it, and
    the 95 % t interval over seeds of the last."""
    found = []
    for pair, arm in ((pair, arm) for pair, of_pair in arms.items() for arm in of_pair):
        rows = runs.table[(runs.table["pair"] == pair) & (runs.table["arm"] == arm)]
        at_the_end = last_scores(rows, metric)
        if at_the_end is None:
            continue
        step, values = at_the_end
        finite = rows[np.isfinite(rows[metric].astype(float))]
        first = int(finite["step"].min())
        low, high = seed_interval(values)[1:] if len(values) > 1 else (np.nan, np.nan)
        row = {"pair": pair, "arm": arm, "seeds": len(values), "first_step": first}
        row |= {"first": finite.loc[finite["step"] == first, metric].mean(), "last_step": step, "last": values.mean()}
        found.append(row | {"last_low": low, "last_high": high, "change": row["last"] - row["first"]})
    return found


def sentence(row: Mapping[str, Any]) -> str:
    """One arm's way from its first to its last value."""
    seeds = f"{row['seeds']} seeds" if row["seeds"] > 1 else "one seed"
    interval = f", 95 % interval {row['last_low']:.4g} to {row['last_high']:.4g}" if np.isfinite(row["last_low"]) else ""
    way = f"{row['last']:.4g} at step {row['last_step']}"
    if row["first_step"] != row["last_step"]:
        way = f"{row['first']:.4g} at step {row['first_step']} -> {way}"
    return f"{row['arm']} on {row['pair']}: {way} ({seeds}{interval})."


def to_markdown(metric: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of one metric for a reader."""
    lines = ["| pair | arm | seeds | first (step) | last (step) | 95 % interval | change |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        interval = f"{row['last_low']:.4g} to {row['last_high']:.4g}" if np.isfinite(row["last_low"]) else "-"
        cells = [row["pair"], row["arm"], str(row["seeds"]), f"{row['first']:.4g} ({row['first_step']})"]
        cells += [f"{row['last']:.4g} ({row['last_step']})", interval, f"{row['change']:+.4g}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"`{metric}`: mean over seeds; interval: 95 % t interval over seeds."]) + "\n"
