"""The words of a comparison: one sentence each, and one for all comparisons of a question on a pair."""

from __future__ import annotations

from collections.abc import Sequence

from Verl.analysis.runs.run_file import TEST
from Verl.analysis.style import arm_label
from Verl.analysis.verdicts.comparison import Comparison
from Verl.statistics import VERDICTS


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
    _, *parts = metric.split("/")
    if not metric.startswith("eval/") or len(parts) != 2:
        return f"{metric} at {point(c.axis, c.at)}"
    return f"{parts[0]} {'Pass@1' if parts[1] == 'pass@1' else parts[1]} at {point(c.axis, c.at)}"


def _n(c: Comparison) -> str:
    answers = f" x {c.samples} answers" if c.samples > 1 else ""
    questions = f" x {c.questions} questions{answers}" if c.questions else ", their averages only"
    return f"{len(c.seeds)} paired seed{'s' * (len(c.seeds) != 1)}{questions}"


_OPEN_AT_LENGTH = "undecided (a difference is not shown; the interval says how large it may be)"


def _interval(c: Comparison) -> str:
    if c.known:
        return f"{number(c.judged.found.low)} to {number(c.judged.found.high)}"
    return "unknown"


def _difference(c: Comparison) -> float:
    return c.judged.found.difference if c.judged is not None else c.result.difference


def verdict_words(c: Comparison, at_length: bool = False) -> str:
    """The verdict in words: "equivalent within ±0.02"."""
    if c.verdict == "equivalent":
        return f"equivalent within ±{c.judged.margin:g}"
    if c.verdict in ("better", "worse"):
        return c.verdict
    return _OPEN_AT_LENGTH if at_length else "undecided"


def check_words(c: Comparison, alpha: float) -> str:
    """What the plain paired t says where it disagrees with the verdict; empty where it agrees."""
    if not c.disputed(alpha):
        return ""
    holm = f"Holm-adjusted p {p_text(c.adjusted_p)} over {c.family} comparison{'s' * (c.family > 1)}"
    if c.check_shows(alpha):
        return f"the plain paired t, of this arm's seeds alone, does show a difference ({holm})"
    return f"the plain paired t, of this arm's seeds alone, does not show it ({holm})"


def _identical(c: Comparison) -> str:
    """Which comparisons are this one, because the arms' logs are identical; empty if none is."""
    if c.counted_as is not None:
        arm, base = (arm_label(name) for name in c.counted_as)
        return f" Identical logs: this is the comparison of {arm} with {base}, counted once."
    if c.repeated_by:
        names = _joined([arm_label(arm) for arm in (c.arm, *c.repeated_by)])
        return f" Identical logs: {names} are one comparison, counted once."
    return ""


def _p(c: Comparison) -> str:
    """p of the verdict, with the size of its family."""
    many = c.judged.family
    return f"p {p_text(c.judged.found.p)} over {many} comparison{'s' * (many > 1)}"


def sentence_of(c: Comparison, metric: str, alpha: float) -> str:
    """The verdict of one comparison; what was compared stands in it, so that it can be quoted alone.

    The difference and its simultaneous interval come first, then the verdict, then the plain t where it disagrees.
    """
    difference = _difference(c)
    direction = "above" if difference >= 0 else "below"
    p = f"; {_p(c)}" if c.judged is not None else ""
    text = (
        f"{c.pair}: {arm_label(c.arm)} is {abs(difference):.3f} {direction} {arm_label(c.base_line)}, "
        f"95 % interval {_interval(c)} ({_measured(c, metric)}; {_n(c)}{p}): {verdict_words(c, at_length=True)}."
    )
    checked = check_words(c, alpha)
    notes = [*c.notes, *([c.judged.note] if c.judged is not None and c.judged.note else [])]
    text += f" {checked[0].upper()}{checked[1:]}." if checked else ""
    return text + _identical(c) + "".join(f" Note: {note}." for note in notes)


def _joined(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else list(parts))


def _in_brackets(c: Comparison, against: bool, with_p: bool = True) -> str:
    """One arm within a sentence over several: its difference, its interval and p."""
    other = f" against {arm_label(c.base_line)}" if against else ""
    p = f", p {p_text(c.judged.found.p)}" if with_p and c.judged is not None else ""
    return f"{arm_label(c.arm)}{other} {number(_difference(c))} ({_interval(c)}{p})"


def _sorted_out(tested: Sequence[Comparison], with_p: bool = True) -> str:
    """Every difference with its interval, and behind each group of them the verdict."""
    against = len({c.base_line for c in tested}) > 1
    groups: dict[str, list[Comparison]] = {verdict: [] for verdict in VERDICTS}
    for c in tested:
        groups[c.verdict].append(c)
    alone = with_p and len(groups["undecided"]) == len(tested)
    parts = [
        f"{_joined([_in_brackets(c, against, with_p) for c in group])}: {verdict_words(group[0], at_length=alone)}"
        for group in groups.values()
        if group
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


def _disputed(tested: Sequence[Comparison], alpha: float) -> str:
    """Where the plain t disagrees, arm by arm."""
    parts = [f"{arm_label(c.arm)}: {check_words(c, alpha)}" for c in tested if c.disputed(alpha)]
    return f" Verdict and check disagree. {'; '.join(parts)}." if parts else ""


def _would_be_found(comparisons: Sequence[Comparison], alpha: float) -> str:
    """How large a difference these comparisons would have found."""
    sizes = [size for size in (c.detectable(alpha) for c in comparisons) if size is not None and size > 0]
    if not sizes:
        return ""
    if min(sizes) > 1.0:
        return " With this noise, not even a difference of 1 would be found in 4 of 5 such studies."
    about = _span([f"{size:.2f}" for size in (min(sizes), min(max(sizes), 1.0))])
    return f" With this noise, a true difference of about {about} would be found in 4 of 5 such studies."


def _not_comparable(missing_ones: Sequence[Comparison]) -> str:
    """Which comparisons stand open, and why."""
    if not missing_ones:
        return ""
    absent = list(dict.fromkeys(arm_label(c.arm) for c in missing_ones if c.why_not == no_run(c.arm)))
    reasons = [f"{_joined(absent)}, not run"] if absent else []
    reasons += [
        f"{arm_label(c.arm)} against {arm_label(c.base_line)}, because {c.why_not}"
        for c in missing_ones
        if c.why_not != no_run(c.arm)
    ]
    return f"{missing_ones[0].pair}: cannot be compared: {'; '.join(reasons)}."


def _said_of(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Those that have a verdict, of identical logs one."""
    return [c for c in comparisons if c.verdict is not None and c.counted_as is None]


def headline(comparisons: Sequence[Comparison], alpha: float = 0.05) -> str:
    """The shortest form of ``conclusion``: every difference with its interval, then its verdict."""
    tested = _said_of(comparisons)
    if not tested:
        return "Nothing can be compared yet." if comparisons else ""
    missing = sum(c.verdict is None for c in comparisons)
    left_out = f"; {missing} cannot be compared" if missing else ""
    against = _compared_with(tested)
    text = f"{against}: " if against else ""
    text += f"{_sorted_out(tested, with_p=False)}{left_out}.{''.join(_identical(c) for c in tested)}"
    return text[0].upper() + text[1:]


def conclusion(comparisons: Sequence[Comparison], metric: str = TEST, alpha: float = 0.05) -> str:
    """All comparisons of a question on one pair in a sentence, with n, intervals and p; then what it could miss.

    ``comparisons``: of one pair; an empty list gives an empty text.
    """
    tested = _said_of(comparisons)
    missing_ones = [c for c in comparisons if c.verdict is None]
    within = [c for c in tested if c.verdict == "undecided"]
    if len(tested) < 2:
        sentences = " ".join(c.sentence for c in tested) + _would_be_found(within, alpha)
        return f"{sentences} {_not_comparable(missing_ones)}".strip()
    n = _span([_n(c) for c in tested])
    where = _span([_measured(c, metric) for c in tested])
    many = sorted({c.judged.family for c in tested if c.judged is not None})
    over = " to ".join(dict.fromkeys([str(many[0]), str(many[-1])])) if many else "0"
    head = ", ".join(part for part in (tested[0].pair, _compared_with(tested)) if part)
    text = f"{head}: {_sorted_out(tested)}. Simultaneous 95 % intervals; {n}; {where}; p over {over} comparisons."
    text += _disputed(tested, alpha) + "".join(_identical(c) for c in tested)
    return f"{text}{_would_be_found(within, alpha)} {_not_comparable(missing_ones)}".rstrip()
