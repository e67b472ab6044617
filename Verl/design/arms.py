"""What study.yaml is made of: arms, factors that compare them, pairs that they run on. See that file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import combinations

from Verl.trainer.naming import arm_name
from Verl.trainer.ppo.estimators import estimators

_QUERIES, _ROLLOUTS = "data.train_batch_size", "actor_rollout_ref.rollout.n"

# What a figure can be drawn against: word, label.
AXES = {
    "steps": "training steps",
    "queries": "queries seen",
    "responses": "responses generated",
    "tokens": "tokens generated",
    "gradient_samples": "gradient samples",
    "hours": "hours",
}

# Figures and tables over all factors, Running-Results/plot_<name>.py: no factor can have such a name.
OVERVIEWS = ("table", "forest", "frontier", "fits", "generalisation")


@dataclass(frozen=True)
class Arm:
    """An estimator and the sizes of its rollout. `changes` and `expect` are for its scripts' headers."""

    name: str
    estimator: str
    queries: int
    rollouts: int
    extra: int | None = None
    window: int | None = None
    variant: str | None = None
    settings: tuple[str, ...] = ()
    changes: str | None = None
    expect: str | None = None

    @property
    def entry(self) -> str:
        return estimators()[self.estimator].entry

    @property
    def responses(self) -> int:
        """Responses drawn a step, extra ones too."""
        return self.queries * (self.rollouts + (self.extra or 0))

    @property
    def named_by_its_settings(self) -> str:
        """As Verl/trainer/naming.py composes it."""
        size = estimators()[self.estimator].size
        last = getattr(self, size.word) if size else None
        return arm_name(self.estimator, self.queries, self.rollouts, last, self.variant)


@dataclass(frozen=True)
class Factor:
    """One design choice: arms that may differ in `keys` only, and what the report says about them.

    Args:
        name: of its figures and of its section in the report.
        title: of both.
        keys: that its arms may differ in.
        question: what it asks, in a sentence or two.
        arms: compared all with all.
        matched: (arm, the one that it is compared with).
        reference: what the report compares every arm with; by default the first arm's partner, or the first arm.
        also: arms that are drawn beside them, as a pattern with a star too: runs of earlier studies, not declared here.
        axes: keys of AXES that its figures are drawn against.
        from_start: whether each arm is also compared with its own evaluation before training.
        product: what queries x rollouts is held at.
        published: what the paper's digest says (unconfirmed), or what the source found.
        source: where the choice is argued about: arXiv numbers, or an address.
        gpu: why a CPU can't answer it; empty where it can.
        trial: settings of the effect check's runs, under which two steps can show the effect.
        beyond: its arms beyond the published grid; where none of them was run the factor is left out of figures and report.
    """

    name: str
    title: str
    keys: tuple[str, ...]
    question: str = ""
    reference: str = ""
    arms: tuple[str, ...] = ()
    matched: tuple[tuple[str, str], ...] = ()
    also: tuple[str, ...] = ()
    axes: tuple[str, ...] = ("steps",)
    from_start: bool = False
    product: int | None = None
    published: str | None = None
    source: str = ""
    gpu: str = ""
    trial: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()

    @property
    def optional(self) -> bool:
        return bool(self.beyond)

    @property
    def members(self) -> list[str]:
        return list(dict.fromkeys([*self.arms, *(arm for pair in self.matched for arm in pair)]))

    @property
    def level(self) -> str | None:
        """The number that its arms are steps of, if they lie on one scale: "queries" or "rollouts"."""
        if len(self.arms) < 2 or not set(self.keys) <= {_QUERIES, _ROLLOUTS}:
            return None
        return "queries" if _QUERIES in self.keys else "rollouts"

    def comparisons(self, members: Iterable[str]) -> list[tuple[str, str]]:
        """The pairs of arms to compare among those that are there."""
        there = set(members)
        pairs = [*combinations(self.arms, 2), *self.matched]
        return [pair for pair in pairs if there.issuperset(pair)]


@dataclass(frozen=True)
class Pair:
    """A model on a data set, and the arms that have a script there.

    Any other arm runs there as well, without a script, except the `excluded` ones: what the data or the machine can't have.
    """

    name: str
    model: str
    data: str
    machine: str
    arms: tuple[str, ...]
    stands_for: dict[str, dict[str, str]] = field(default_factory=dict, hash=False)
    excluded: frozenset[str] = frozenset()

    def with_arms(self, names: Iterable[str]) -> Pair:
        """The pair with these arms too, as far as they can run there."""
        further = [name for name in names if name not in self.excluded]
        return replace(self, arms=tuple(dict.fromkeys([*self.arms, *further])))

    def members(self, factor: Factor) -> dict[str, str]:
        """Published arm: the arm of this pair that runs in its place, for the arms of a factor that are here."""
        scaled = {published: arm for arm, published in self.stands_for.get(factor.name, {}).items()}
        here = {arm: scaled.get(arm, arm) for arm in factor.members}
        return {published: arm for published, arm in here.items() if arm in self.arms}

    def comparisons(self, factor: Factor) -> list[tuple[str, str]]:
        """The arms of this pair that a factor compares."""
        members = self.members(factor)
        return [(members[a], members[b]) for a, b in factor.comparisons(members)]

    def compared(self, factor: Factor) -> list[str]:
        """The same, each arm once; of a factor that is one arm, this."""
        two_by_two = [arm for two in self.comparisons(factor) for arm in two]
        return list(dict.fromkeys(two_by_two)) if len(factor.members) > 1 else list(self.members(factor).values())
