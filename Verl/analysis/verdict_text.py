"""The words of a comparison: one sentence each, and one for all comparisons of a question on a pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from Verl.analysis.run_files import TEST
from Verl.analysis.style import arm_label

if TYPE_CHECKING:
    from Verl.analysis.verdict import Comparison


def number(x: float) -> str:
    """A signed difference: +0.102."""
    return f"{x:+.3f}".replace("-", "\N{MINUS SIGN}")


def no_run(arm: str) -> str:
    """Why an arm that was never run cannot be compared."""
    return f"there is no run of {arm}"


def p_text(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "below 0.001"


def point(axis: str, at: float) -> str:
    """Where two arms are compared: step 100, 51,200 tokens, 0.35 hours."""
    if axis == "steps":
        return f"step {int(at)}"
    return f"{at:.3g} hours" if axis == "hours" else f"{at:,.0f} {axis.replace('_', ' ')}"


def _measured(c: Comparison, metric: str) -> str:
    split, rule = metric.split("/")[1:]
    return f"{split} {'Pass@1' if rule == 'pass@1' else rule} at {point(c.axis, c.at)}"


def _n(c: Comparison) -> str:
    questions = f" x {c.questions} questions" if c.questions else ", their averages only"
    return f"{len(c.seeds)} paired seeds{questions}"


def sentence_of(c: Comparison, metric: str, alpha: float) -> str:
    """The verdict of one comparison; what was compared stands in it, so that it can be quoted alone."""
    direction = "above" if c.result.difference >= 0 else "below"
    holm = f"Holm-adjusted p {p_text(c.adjusted_p)} over {c.family} comparison{'s' * (c.family > 1)}"
    text = (
        f"{c.pair}: {arm_label(c.arm)} is {abs(c.result.difference):.3f} {direction} {arm_label(c.base_line)} "
        f"({_measured(c, metric)}; {_n(c)}; 95 % interval {number(c.result.low)} to {number(c.result.high)}; {holm})"
    )
    if c.beyond_noise(alpha):
        text += ": beyond noise."
    else:
        text += ": not beyond noise (which does not prove that there is no difference)."
    return text + "".join(f" Note: {note}." for note in c.notes)


def _joined(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else list(parts))


def _in_brackets(c: Comparison, against: bool) -> str:
    """One arm within a sentence over several."""
    other = f" against {arm_label(c.base_line)}" if against else ""
    interval = f"{number(c.result.low)} to {number(c.result.high)}"
    return f"{arm_label(c.arm)}{other} {number(c.result.difference)} ({interval}, p {p_text(c.adjusted_p)})"


def _span(values: Sequence[str]) -> str:
    """One text if all are the same, else the first and the last in order of size."""
    ordered = sorted(set(values), key=lambda text: (len(text), text))
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"


def _would_be_found(comparisons: Sequence[Comparison], alpha: float) -> str:
    """How large a difference these comparisons would have found."""
    sizes = [size for size in (c.detectable(alpha) for c in comparisons) if size is not None and size > 0]
    if not sizes:
        return ""
    if min(sizes) > 1.0:
        return " With this noise, not even a difference of 1 would be found in 4 of 5 such studies."
    about = _span([f"{size:.2f}" for size in (min(sizes), min(max(sizes), 1.0))])
    return f" With this noise, a true difference of about {about} would be found in 4 of 5 such studies."


def _told(tested: Sequence[Comparison], alpha: float) -> str:
    """How many of several differ beyond noise, from what."""
    beyond, bases = sum(c.beyond_noise(alpha) for c in tested), {c.base_line for c in tested}
    if len(bases) > 1:
        return f"{beyond or 'none'} of {len(tested)} comparisons show{'s' * (beyond < 2)} a difference beyond noise"
    base = arm_label(next(iter(bases)))
    return f"{beyond or 'none'} of {len(tested)} arms differ{'s' * (beyond < 2)} from {base} beyond noise"


def _cannot_be_told(untold: Sequence[Comparison]) -> str:
    """Which comparisons stand open, and why."""
    if not untold:
        return ""
    absent = list(dict.fromkeys(arm_label(c.arm) for c in untold if c.why_not == no_run(c.arm)))
    reasons = [f"{_joined(absent)}, not run"] if absent else []
    reasons += [
        f"{arm_label(c.arm)} against {arm_label(c.base_line)}, because {c.why_not}"
        for c in untold
        if c.why_not != no_run(c.arm)
    ]
    return f"{untold[0].pair}: cannot be told: {'; '.join(reasons)}."


def headline(comparisons: Sequence[Comparison], alpha: float = 0.05) -> str:
    """The shortest form of ``conclusion``: no intervals, so only beside it."""
    tested = [c for c in comparisons if c.result is not None]
    if not tested:
        return "Cannot be told yet." if comparisons else ""
    missing = len(comparisons) - len(tested)
    untold = f"; {missing} cannot be told" if missing else ""
    if len(tested) == 1:
        (c,) = tested
        noise = "beyond noise" if c.beyond_noise(alpha) else "not beyond noise"
        arm = arm_label(c.arm)
        return f"{arm[0].upper()}{arm[1:]} against {arm_label(c.base_line)}: {number(c.result.difference)}, {noise}{untold}."
    against = len({c.base_line for c in tested}) > 1
    beyond = [c for c in tested if c.beyond_noise(alpha)]
    others = [f" against {arm_label(c.base_line)}" if against else "" for c in beyond]
    named = [f"{arm_label(c.arm)}{other} {number(c.result.difference)}" for c, other in zip(beyond, others)]
    told = _told(tested, alpha)
    return f"{told[0].upper()}{told[1:]}{': ' + _joined(named) if named else ''}{untold}."


def conclusion(comparisons: Sequence[Comparison], metric: str = TEST, alpha: float = 0.05) -> str:
    """All comparisons of a question on one pair in a sentence, with n, intervals and Holm's p; then what it could miss.

    ``comparisons``: of one pair and one family; an empty list gives an empty text.
    """
    tested = [c for c in comparisons if c.result is not None]
    untold = [c for c in comparisons if c.result is None]
    if len(tested) < 2:
        within = [c for c in tested if not c.beyond_noise(alpha)]
        told = " ".join(c.sentence for c in tested) + _would_be_found(within, alpha)
        return f"{told} {_cannot_be_told(untold)}".strip()
    against = len({c.base_line for c in tested}) > 1
    beyond = [c for c in tested if c.beyond_noise(alpha)]
    within = [c for c in tested if not c.beyond_noise(alpha)]
    parts = [f"{'above' if up else 'below'}: {_joined([_in_brackets(c, against) for c in group])}"
             for up in (True, False) if (group := [c for c in beyond if (c.result.difference >= 0) == up])]  # fmt: skip
    if within:
        parts.append(f"not beyond noise: {_joined([_in_brackets(c, against) for c in within])}")
    n = _span([_n(c) for c in tested])
    where = _span([_measured(c, metric) for c in tested])
    family = tested[0].family
    holm = f"p Holm-adjusted over {family} comparison{'s' * (family > 1)}"
    text = f"{tested[0].pair}: {_told(tested, alpha)}; {'; '.join(parts)}. 95 % intervals; {n}; {where}; {holm}."
    return f"{text}{_would_be_found(within, alpha)} {_cannot_be_told(untold)}".rstrip()
