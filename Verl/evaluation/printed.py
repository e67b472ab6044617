"""What an evaluation shows: progress with the time left, and the tables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from Verl.evaluation.compare import ModelComparison
from Verl.evaluation.metrics import RULES
from Verl.wording import duration

_PERCENT = 100


_QUIET_SECONDS = 30.0  # within a batch, a line this often


class EvaluationProgress:
    """A line per finished batch, and within one that takes long. `left` is taken from this session's batches, not from
    those done before; within the first it is an upper bound, as if every response grew to its limit."""

    def __init__(self, console: Console, total: int, done_before: int, max_length: int):
        self.console, self.total, self.done, self.new, self.max_length = console, total, done_before, 0, max_length
        self.began = self.last_line = time.monotonic()
        if done_before:
            console.print(f"{done_before} of {total} responses were done before; going on")

    def tick(self, responses: int, length: int) -> None:
        """The batch under way has `responses`, which are `length` tokens long by now."""
        now = time.monotonic()
        if now - self.last_line < _QUIET_SECONDS:
            return
        self.last_line, elapsed = now, now - self.began
        worth = self.new + responses * min(1.0, length / self.max_length)
        left = elapsed / worth * (self.total - self.done + self.new - worth)
        self.console.print(
            f"{self.done:>6} of {self.total} responses, {responses} more at token {length} of at most {self.max_length}, "
            f"{duration(elapsed)} so far, at most {duration(left)} left",
            highlight=False,
            soft_wrap=True,  # a line stays a line, in a log too
        )

    def batch(self, responses: int, right: float) -> None:
        """Reports a batch of `responses`, of which the share `right` is right under the strict rule."""
        self.done, self.new = self.done + responses, self.new + responses
        self.last_line = time.monotonic()
        elapsed = self.last_line - self.began
        left = elapsed / self.new * (self.total - self.done)
        self.console.print(
            f"{self.done:>6} of {self.total} responses, {duration(elapsed)} so far, {duration(left)} left "
            f"(strict in this batch: {right:.2f})",
            highlight=False,
            soft_wrap=True,  # a line stays a line, in a log too
        )


_LEGEND = {
    "strict": "right in the demanded format",
    "lenient": "the same in more spellings",
    "flexible": "right, however it is written",
    "format": "the format alone",
}
_HOW = "In %, with 95 % intervals: bootstrap over questions."


def show(console: Console, evaluation: dict[str, Any]) -> None:
    """The table of an evaluation as it stands in evaluation.json: a line per metric, a column per rule."""
    settings, metrics = evaluation["settings"], evaluation["metrics"]
    console.print(f"\n{settings['model']} on {settings['data']}", style="italic", highlight=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("metric", no_wrap=True)
    rules = [rule for rule in RULES if any(metric["rule"] == rule for metric in metrics)]
    for rule in rules:
        table.add_column(rule, justify="right", no_wrap=True)
    for name in dict.fromkeys(metric["name"] for metric in metrics):
        by_rule = {metric["rule"]: _interval(metric) for metric in metrics if metric["name"] == name}
        table.add_row(name, *(by_rule.get(rule, "") for rule in rules))
    console.print(table)
    for metric in metrics:
        if metric["rule"] == RULES[0]:
            label = metric["label"].rsplit(", ", 1)[0]  # the last part names the rule, which is the column here
            named = label.lower().startswith(metric["name"])
            console.print(label if named else f"{metric['name']}: {label}", highlight=False)
    for name, mean in evaluation.get("parts", {}).items():
        console.print(f"{name}: {mean:.4g}", highlight=False, markup=False)
    legend = "; ".join(f"{rule}: {_LEGEND[rule]}" for rule in rules)
    console.print(f"{legend}. {_HOW}\n{_facts(evaluation['counts'], settings)}", highlight=False)


def _interval(metric: dict[str, Any]) -> str:
    low, high = metric["low"] * _PERCENT, metric["high"] * _PERCENT
    return f"{metric['estimate'] * _PERCENT:.1f} ({low:.1f} to {high:.1f})"


def _facts(counts: dict[str, Any], settings: dict[str, Any]) -> str:
    lines = [
        f"{counts['questions']} questions, {counts['responses']} responses of {counts['mean_response_length']:.0f} tokens on "
        f"average; {counts['cut_off']} were cut off at {settings['max_response_length']} tokens."
    ]
    if counts["too_long"]:
        lines.append(
            f"{counts['too_long']} questions were left out: prompts of more than {settings['max_prompt_length']} tokens."
        )
    if counts["failures"] or counts["timeouts"]:
        lines.append(
            f"Scoring failed {counts['failures']} times and timed out {counts['timeouts']} times; these count as wrong."
        )
    return "\n".join(lines)


def show_comparison(console: Console, other: str, comparisons: Sequence[ModelComparison]) -> None:
    """The paired tests against another evaluation."""
    console.print(f"\nagainst {other}, on the same questions", style="italic", highlight=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("metric", no_wrap=True)
    for heading in ("this", "other", "difference", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("test")
    for one in comparisons:
        table.add_row(
            f"{one.name} {one.rule}",
            f"{one.this * _PERCENT:.1f}",
            f"{one.other * _PERCENT:.1f}",
            f"{one.difference * _PERCENT:+.1f} ({one.low * _PERCENT:+.1f} to {one.high * _PERCENT:+.1f})",
            "< 0.0001" if one.p < 0.0001 else f"{one.p:.4f}",
            one.test.removeprefix("exact ").removeprefix("paired "),
        )
    console.print(table)
    questions = comparisons[0].questions if comparisons else 0
    console.print(
        f"{questions} questions in both, in %. Tests: exact McNemar for one answer each, paired bootstrap for averages. "
        "p says whether other questions would show the difference, not whether another training seed would.",
        highlight=False,
    )
