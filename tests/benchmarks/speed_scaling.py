"""How the seconds of a step grow with rollouts, batch, response length and parameters: measured, fitted, drawn.

    python -m tests.benchmarks.speed_scaling [--axis rollouts] [--steps 2] [--minutes 10] [--again] [--draw-only]

One axis is varied at a time from a common base (8 queries x 1 rollout, 128 + 48 tokens, 3 M parameters); every point is a
whole run of our trainer. Points that are kept in results/speed_scaling.json are not run again. About fifteen minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tests.benchmarks.speed import ours
from tests.benchmarks.speed.driver import RESULTS, say
from tests.benchmarks.speed.work import Work, prepare
from Verl import provenance

KEPT = RESULTS / "speed_scaling.json"
BASE = Work("base", queries=8, rollouts=1)


@dataclass(frozen=True)
class Axis:
    """What is varied: a field of Work and its values; the base's own value is among them."""

    name: str
    field: str
    values: tuple
    label: str

    def work(self, value) -> Work:
        return replace(BASE, **{self.field: value})


AXES = (
    Axis("rollouts", "rollouts", (1, 4, 16, 64), "rollouts per query"),
    Axis("batch", "queries", (1, 8, 64, 512), "queries"),
    Axis("response", "response", (48, 128, 384, 1024), "response tokens"),
    Axis("parameters", "model", ("4x128x512", BASE.model, "6x512x1408", "21x768x2048"), "parameters, millions"),
)


def parameters(shape: str) -> float:
    """Millions of parameters of a byte-level model."""
    from transformers import AutoModelForCausalLM

    folder, _, _ = prepare(replace(BASE, model=shape), rows=8)
    return AutoModelForCausalLM.from_pretrained(folder).num_parameters() / 1e6


def key(work: Work) -> str:
    return f"{work.model}_{work.queries}x{work.rollouts}_{work.prompt}+{work.response}"


def measure(axes: list[Axis], steps: int, end: float, again: bool) -> dict:
    """Fills in the missing points, cheapest axis values first, until the clock reaches `end`."""
    kept = json.loads(KEPT.read_text()) if KEPT.is_file() and not again else {"points": {}}
    for work in [axis.work(value) for axis in axes for value in axis.values]:
        if key(work) in kept["points"]:
            continue
        if time.monotonic() >= end:
            say("the minutes are over; the same command goes on")
            break
        say(f"measuring {key(work)}")
        result = ours.measure(work, steps)
        kept["points"][key(work)] = {
            "steps": result["steps"]["ours"], "gigabytes": result["gigabytes"], "commit": result["commit"],
            "parameters": parameters(work.model),
        }  # fmt: skip
        kept |= {"machine": provenance.describe()["host"], "versions": provenance.versions()}
        RESULTS.mkdir(exist_ok=True)
        KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    return kept


def points(axis: Axis, kept: dict) -> tuple[list[float], list[list[float]]]:
    """The axis's measured values and their seconds per step."""
    found = [
        (value, kept["points"][key(axis.work(value))])
        for value in axis.values
        if key(axis.work(value)) in kept["points"]
    ]
    x = [point["parameters"] if axis.field == "model" else float(value) for value, point in found]
    return x, [[record["step"] for record in point["steps"]] for _, point in found]


def fit(x: list[float], seconds: list[float]) -> tuple[float, float]:
    """(fixed, slope) of seconds = fixed + slope x, neither below 0, least squares of relative errors."""
    from scipy.optimize import nnls

    weight = 1 / np.asarray(seconds)
    solution, _ = nnls(np.stack([np.ones(len(x)), np.asarray(x)], axis=1) * weight[:, None], np.ones(len(x)))
    return float(solution[0]), float(solution[1])


def exponent(x: list[float], seconds: list[float]) -> float:
    """Power by which the seconds grow between the two largest points: 1 is linear, 2 quadratic."""
    return math.log(seconds[-1] / seconds[-2]) / math.log(x[-1] / x[-2])


def draw(kept: dict, path: Path) -> list[Path]:
    """One figure, a panel per axis: medians with their range, the fitted line and its numbers."""
    import matplotlib

    from Verl.analysis.figures import layout
    from Verl.analysis.style import BLUE, DASHED, GREY, PAGE_WIDTH

    with matplotlib.rc_context(layout.settings()):
        figure = matplotlib.figure.Figure(figsize=(PAGE_WIDTH, 2.0))
        panels = figure.subplots(1, len(AXES), sharey=True)
        for axis, panel in zip(AXES, panels, strict=True):
            x, all_seconds = points(axis, kept)
            middle = [statistics.median(seconds) for seconds in all_seconds]
            if len(x) < 2:
                panel.set_title(f"{axis.label}: not measured")
                continue
            spread = [
                [m - min(s) for m, s in zip(middle, all_seconds)],
                [max(s) - m for m, s in zip(middle, all_seconds)],
            ]
            fixed, slope = fit(x, middle)
            dense = np.geomspace(x[0], x[-1], 100)
            panel.plot(dense, fixed + slope * dense, color=GREY, linestyle=DASHED)
            panel.errorbar(x, middle, spread, color=BLUE, linestyle="none", marker="o", capsize=2)
            panel.set(xscale="log", yscale="log", xlabel=axis.label)
            panel.set_xticks(x, [f"{value:.3g}" if value < 999 else f"{value:.0f}" for value in x])
            panel.minorticks_off()
            panel.set_title(f"{fixed:.2f} s + {slope:.2g} s each\nexponent at the end {exponent(x, middle):.2f}")
        panels[0].set_ylabel("seconds per step")
        figure.subplots_adjust(left=0.07, right=0.99, top=0.82, bottom=0.2, wspace=0.12)
        return layout.save(figure, path)


def table(kept: dict) -> str:
    """The same numbers as markdown."""
    out = [
        "| axis | seconds per step at each value | fixed, s | slope, s | exponent at the end |",
        "|---|---|---|---|---|",
    ]
    for axis in AXES:
        x, all_seconds = points(axis, kept)
        middle = [statistics.median(seconds) for seconds in all_seconds]
        if len(x) < 2:
            continue
        fixed, slope = fit(x, middle)
        shown = ", ".join(f"{value:.3g}: {seconds:.2f}" for value, seconds in zip(x, middle))
        out.append(f"| {axis.label} | {shown} | {fixed:.2f} | {slope:.3g} | {exponent(x, middle):.2f} |")
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axis", choices=[axis.name for axis in AXES], nargs="+", default=[axis.name for axis in AXES])
    parser.add_argument(
        "--steps", type=int, default=2, help="timed steps a point, after one that warms up (%(default)s)"
    )
    parser.add_argument("--minutes", type=float, default=1e9, help="start nothing more after this long")
    parser.add_argument("--again", action="store_true", help="throw the kept points away first")
    parser.add_argument("--draw-only", action="store_true")
    options = parser.parse_args()
    if options.draw_only and not KEPT.is_file():
        sys.exit(f"error: {KEPT} is not there: run without --draw-only first")
    axes = [] if options.draw_only else [axis for axis in AXES if axis.name in options.axis]
    kept = measure(axes, options.steps, time.monotonic() + 60 * options.minutes, options.again and bool(axes))
    sys.stdout.write(table(kept) + "\n")
    if kept["points"]:
        say(f"drawn: {', '.join(str(path) for path in draw(kept, RESULTS / 'speed_scaling'))}")


if __name__ == "__main__":
    main()
