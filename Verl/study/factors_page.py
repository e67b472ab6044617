"""The table of docs/factors.md: a row for every factor of study.yaml, written by generate_scripts.py."""

from __future__ import annotations

import re

from Verl.design.declared import Arm, Factor, Study

BEGIN, END = "<!-- written by Running-Bash/generate_scripts.py -->", "<!-- end of what is written -->"
_ARXIV = re.compile(r"\b\d{4}\.\d{5}\b")


def with_table(page: str, study: Study) -> str:
    """The page with its table as the design says it: between the two marks; a page without them as it is."""
    if BEGIN not in page or END not in page:
        return page
    before, _, rest = page.partition(BEGIN)
    return "\n".join([before + BEGIN, *table(study), END + rest.partition(END)[2]])


def table(study: Study) -> list[str]:
    """Lines of Markdown."""
    columns = ("factor", "question", "arms, with what each sets", "argued about in; found there", "command")
    head = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return head + [f"| {' | '.join(_row(study, factor))} |" for factor in study.factors.values()]


def _row(study: Study, factor: Factor) -> list[str]:
    arms = [study.arms[name] for name in factor.members]
    keys = "".join(f"<br>`{key}`" for key in factor.keys)
    options = "--factor " + factor.name
    pair = study.smallest if not factor.gpu else next(one for one in study.pairs.values() if one.machine != "cpu").name
    return [
        f"**{factor.name}**{keys}",
        factor.question,
        "<br>".join(f"`{arm.name}`: {_sets(arm)}" for arm in arms),
        "; ".join(filter(None, [_links(factor.source), factor.published])),
        f"`run_study.sh --pair {pair} {options}`",
    ]


def _sets(arm: Arm) -> str:
    """What an arm sets: its own settings, else its sizes."""
    if arm.settings:
        return ", ".join(f"`{text.removeprefix('actor_rollout_ref.')}`" for text in arm.settings)
    last = f", {arm.extra} extra" if arm.extra else f", window {arm.window}" if arm.window else ""
    return f"{arm.queries} × {arm.rollouts}{last}"


def _links(source: str) -> str:
    linked = _ARXIV.sub(lambda match: f"[{match[0]}](https://arxiv.org/abs/{match[0]})", source)
    return f"<{linked}>" if linked.startswith("http") else linked
