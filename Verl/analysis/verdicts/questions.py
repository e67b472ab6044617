"""The questions of the study: which arms each compares, with what, and in which words. Figures and report read this.

The cells of a factor, and what stands for them on a pair, come from Running-Bash/study.yaml; here is only what a reader
is asked and told about them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache

import pandas as pd

from Verl.study.design import Pair, Study, load

BASE_LINE = "grpo_0032_1"


@dataclass(frozen=True)
class Question:
    """What one figure and one section of the report ask.

    Args:
        name: of the figure's files.
        title: of figure and section.
        asks: the question, in a sentence.
        factors: of study.yaml; their cells are the arms.
        reference: the arm that the others are compared with.
        shown: arms that are drawn beside the factors' cells, as a pattern with a star too.
        matched: whether each arm is also compared with the cell that it is matched to in study.yaml.
        from_start: whether each arm is also compared with its own evaluation before training.
        axes: the budget axes it is drawn against by default.
        level: the number that makes an arm's name, where the arms are steps on one scale: "queries" or "rollouts".
        optional: not of the paper: left out where none of its arms was run.
    """

    name: str
    title: str
    asks: str
    factors: tuple[str, ...] = ()
    reference: str = BASE_LINE
    shown: tuple[str, ...] = ()
    matched: bool = False
    from_start: bool = False
    axes: tuple[str, ...] = ("steps",)
    level: str | None = None
    optional: bool = False


_GRPO = "grpo_0032_8"
QUESTIONS = (
    Question(
        "baseline",
        "The base line",
        "Does the base line alone improve? One rollout per query, the 0/1 reward itself as the signal, 32 queries a step.",
        shown=(BASE_LINE,),
        from_start=True,
    ),
    Question(
        "advantage",
        "Advantage only",
        "What does an advantage add, alone? One-RPO trains on one rollout a query like the base line, and takes mean and "
        "standard deviation from 7 extra rollouts; GRPO with 8 rollouts trains on all 8.",
        ("advantage",),
        shown=(_GRPO,),
        axes=("steps", "tokens"),
    ),
    Question(
        "rollouts",
        "Rollouts at batch 32",
        "What do more rollouts per query add, at 32 queries a step?",
        ("rollouts",),
        axes=("steps", "tokens"),
        level="rollouts",
    ),
    Question(
        "batch",
        "Batch at 8 rollouts",
        "What does a larger batch add, at 8 rollouts per query?",
        ("batch",),
        _GRPO,
        axes=("steps", "queries"),
        level="queries",
    ),
    Question(
        "tradeoff",
        "Batch \N{MULTIPLICATION SIGN} rollouts = 256",
        "Many queries or many rollouts, at 256 responses a step? The paper finds 32 queries with 8 rollouts best.",
        ("tradeoff",),
        _GRPO,
        level="queries",
    ),
    Question(
        "replay",
        "Replay of rewards, 256 rollouts a step",
        "Can replayed rewards stand in for rollouts? A window of each query's last 8 rewards; compared with the same batch "
        "without replay, and, as in the paper, with GRPO 32 \N{MULTIPLICATION SIGN} 8.",
        ("replay",),
        _GRPO,
        shown=(_GRPO,),
        matched=True,
    ),
    Question(
        "replay_larger",
        "Replay of rewards, larger batch",
        "What does a larger batch add to replay? One rollout per query, a window of 8 rewards.",
        ("replay_larger",),
        "asyttgrpo_0256_1_8",
        axes=("steps", "queries"),
        level="queries",
    ),
    Question(
        "signal",
        "The group's mean as the signal",
        "Does it matter that a response is compared with its group? ARPO and Bandit-PO give every response of a query the "
        "same signal, the mean reward of its group or of its window, which reaches back to earlier visits of the query.",
        ("signal",),
        _GRPO,
        shown=("banditpo_*",),  # windows that a study had and the design no longer declares
        optional=True,
    ),
    Question(
        "controls",
        "Negative controls",
        "Would we see a gain where there is none? A random reward, rewards shuffled within the batch, a reward for the "
        "format alone, a learning rate of 0.",
        ("random_reward", "shuffled_reward", "format_reward", "no_learning"),
        _GRPO,
        shown=(BASE_LINE, "*_control_*"),
        from_start=True,
    ),
)


@cache
def declared() -> Study:
    """The design, read once."""
    return load()


def question(name: str) -> Question:
    return next(one for one in QUESTIONS if one.name == name)


def _members(asked: Question, pair: str) -> dict[str, str]:
    """Published cell -> the cell of this pair in its place. On a pair that is not declared: the published cells."""
    study = declared()
    members: dict[str, str] = {}
    for name in asked.factors:
        factor, of_pair = study.factors[name], study.pairs.get(pair)
        members |= of_pair.members(factor) if of_pair else dict(zip(factor.members, factor.members))
    return members


def _has(pair: Pair | None, arm: str) -> bool:
    return pair is None or arm in pair.cells


def arms_of(asked: Question, pair: str, present: Sequence[str]) -> list[str]:
    """The arms that a question has on a pair, in order: declared ones whether run or not, patterns by what is there.

    ``present``: arms with runs on the pair. Empty if there is nothing to compare here.
    """
    of_pair, members = declared().pairs.get(pair), _members(asked, pair)
    reference = members.get(asked.reference, asked.reference)
    arms: list[str] = []
    for name in [*asked.shown, *members.values()]:
        fitting = [arm for arm in sorted(present) if fnmatchcase(arm, name)] if "*" in name else [name]
        arms += [arm for arm in fitting if arm not in arms and ("*" in name or _has(of_pair, arm))]
    if asked.factors:
        compared = _compared(asked, reference, arms)
        if not compared or (asked.optional and not set(compared) & set(present)):
            return []
    return sorted(arms, key=lambda arm: _rank(asked, reference, members, arm))


def _compared(asked: Question, reference: str, arms: Sequence[str]) -> list[str]:
    """The arms that the question is about, without what is only drawn beside them."""
    return [arm for arm in arms if arm != reference and arm not in asked.shown]


def _rank(asked: Question, reference: str, members: dict[str, str], arm: str) -> tuple[int, int]:
    """Base line first, then the reference if it is no cell of the factor's own order, then the factor's order."""
    order = list(members.values())
    if arm == BASE_LINE:
        return 0, 0
    if arm in asked.shown or (arm == reference and asked.matched):
        return 1, 0
    return 2, order.index(arm) if arm in order else len(order)


def comparisons_of(asked: Question, pair: str, arms: Sequence[str]) -> list[tuple[str, str]]:
    """(arm, what it is compared with) of a question on a pair, for the arms that ``arms_of`` gave."""
    members = _members(asked, pair)
    reference = members.get(asked.reference, asked.reference)
    if not asked.matched:
        return [(arm, reference) for arm in _compared(asked, reference, arms)]
    matched = [(members.get(a), members.get(b)) for name in asked.factors for a, b in declared().factors[name].matched]
    found = [two for two in matched if two[0] in arms and two[1] in arms]
    return found + [(arm, reference) for arm, _ in found if arm != reference]


def pairs_of(asked: Question, table: pd.DataFrame, pairs: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Pair -> the question's arms there, for the given pairs (default: all that have runs); pairs without any left out."""
    present = table.groupby("pair")["arm"].unique() if len(table) else {}
    found = {
        pair: arms_of(asked, pair, list(present.get(pair, [])))
        for pair in (sorted(present.keys()) if pairs is None else pairs)
    }
    return {pair: arms for pair, arms in found.items() if arms}


def family_of(asked: Question, arms_by_pair: dict[str, list[str]]) -> list[tuple[str, str, str]]:
    """(pair, arm, compared with) over all pairs: one family for Holm's correction."""
    return [(pair, *two) for pair, arms in arms_by_pair.items() for two in comparisons_of(asked, pair, arms)]
