"""The words of a comparison: one sentence each, and one for all comparisons of a question on a pair."""

from __future__ import annotations

from collections.abc import Sequence

from Verl.analysis.runs.files import TEST
from Verl.analysis.style import arm_label
from Verl.analysis.verdicts.comparison import Comparison


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


_OPEN = "not beyond noise, so open"
_OPEN_AT_LENGTH = "not beyond noise (a difference is not shown; the interval says how large it may be)"


def _interval(c: Comparison) -> str:
    return f"{number(c.result.low)} to {number(c.result.high)}"


def _identical(c: Comparison) -> str:
    """Which comparisons are this one, because the arms' logs are identical; empty if none is."""
    if c.counted_as is not None:
        arm, base = (arm_label(name) for name in c.counted_as)
        return f" Identical logs: this is the comparison of {arm} with {base}, counted once."
    if c.repeated_by:
        names = _joined([arm_label(arm) for arm in (c.arm, *c.repeated_by)])
        return f" Identical logs: {names} are one comparison, counted once."
    return ""


def sentence_of(c: Comparison, metric: str, alpha: float) -> str:
    """The verdict of one comparison; what was compared stands in it, so that it can be quoted alone.

    The difference and its interval come first, then whether that is beyond noise.
    """
    direction = "above" if c.result.difference >= 0 else "below"
    holm = f"Holm-adjusted p {p_text(c.adjusted_p)} over {c.family} comparison{'s' * (c.family > 1)}"
    text = (
        f"{c.pair}: {arm_label(c.arm)} is {abs(c.result.difference):.3f} {direction} {arm_label(c.base_line)}, "
        f"95 % interval {_interval(c)} ({_measured(c, metric)}; {_n(c)}; {holm}): "
        f"{'beyond noise' if c.beyond_noise(alpha) else _OPEN_AT_LENGTH}."
    )
    return text + _identical(c) + "".join(f" Note: {note}." for note in c.notes)


def _joined(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else list(parts))


def _in_brackets(c: Comparison, against: bool, with_p: bool = True) -> str:
    """One arm within a sentence over several: its difference, its interval and p."""
    other = f" against {arm_label(c.base_line)}" if against else ""
    p = f", p {p_text(c.adjusted_p)}" if with_p else ""
    return f"{arm_label(c.arm)}{other} {number(c.result.difference)} ({_interval(c)}{p})"


def _sorted_out(tested: Sequence[Comparison], alpha: float, with_p: bool = True) -> str:
    """Every difference with its interval, and behind each group of them whether it is beyond noise."""
    against = len({c.base_line for c in tested}) > 1
    beyond = [c for c in tested if c.beyond_noise(alpha)]
    named = [
        ([c for c in beyond if c.result.difference >= 0], "beyond noise, above"),
        ([c for c in beyond if c.result.difference < 0], "beyond noise, below"),
        ([c for c in tested if not c.beyond_noise(alpha)], _OPEN if beyond or not with_p else _OPEN_AT_LENGTH),
    ]
    parts = [
        f"{_joined([_in_brackets(c, against, with_p) for c in group])}: {words}" for group, words in named if group
    ]
    return "; ".join(parts)


def _compared_with(tested: Sequence[Comparison]) -> str:
    """"against the base line", where all are compared with the same."""
    bases = {c.base_line for c in tested}
    return f"against {arm_label(next(iter(bases)))}" if len(bases) == 1 else ""


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
    """The shortest form of ``conclusion``: every difference with its interval, then whether it is beyond noise."""
    tested = [c for c in comparisons if c.result is not None and c.counted_as is None]
    if not tested:
        return "Cannot be told yet." if comparisons else ""
    missing = sum(c.result is None for c in comparisons)
    untold = f"; {missing} cannot be told" if missing else ""
    against = _compared_with(tested)
    text = f"{against}: " if against else ""
    text += f"{_sorted_out(tested, alpha, with_p=False)}{untold}.{''.join(_identical(c) for c in tested)}"
    return text[0].upper() + text[1:]


def conclusion(comparisons: Sequence[Comparison], metric: str = TEST, alpha: float = 0.05) -> str:
    """All comparisons of a question on one pair in a sentence, with n, intervals and Holm's p; then what it could miss.

    ``comparisons``: of one pair and one family; an empty list gives an empty text.
    """
    tested = [c for c in comparisons if c.result is not None and c.counted_as is None]
    untold = [c for c in comparisons if c.result is None]
    within = [c for c in tested if not c.beyond_noise(alpha)]
    if len(tested) < 2:
        told = " ".join(c.sentence for c in tested) + _would_be_found(within, alpha)
        return f"{told} {_cannot_be_told(untold)}".strip()
    n = _span([_n(c) for c in tested])
    where = _span([_measured(c, metric) for c in tested])
    family = tested[0].family
    holm = f"p Holm-adjusted over {family} comparison{'s' * (family > 1)}"
    head = ", ".join(part for part in (tested[0].pair, _compared_with(tested)) if part)
    text = f"{head}: {_sorted_out(tested, alpha)}. 95 % intervals; {n}; {where}; {holm}."
    text += "".join(_identical(c) for c in tested)
    return f"{text}{_would_be_found(within, alpha)} {_cannot_be_told(untold)}".rstrip()
