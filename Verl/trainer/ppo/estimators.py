"""The estimators that a run can choose, one entry each beside its formula; everything that depends on one reads it here.

Every module `core_algos_*.py` of this package is read for its `ENTRIES`: one file is all that an estimator is made of.
Settings, scripts and figures are made where neither torch nor verl is loaded, so these modules must not import them at
their top (a function may).
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from Verl.errors import UserError

if TYPE_CHECKING:
    import torch

# The entry points main_ppo_<name>: module and class of the trainer behind each.
TRAINERS = {
    "grpo": ("Verl.trainer.ppo.ray_trainer_grpo", "RayTrainerGRPO"),
    "bandit": ("Verl.trainer.ppo.ray_trainer_bandit", "RayTrainerBandit"),
    "replay": ("Verl.trainer.ppo.ray_trainer_replay", "RayTrainerReplay"),
}


@dataclass(frozen=True)
class Size:
    """The number that an arm's name holds behind its queries and rollouts."""

    key: str  # the setting
    word: str  # the arm's entry in study.yaml
    mark: str  # stands before the number in a label
    drawn: bool  # whether it counts responses per query that are drawn and scored beside the trained ones


EXTRA = Size("data.extra_sampling_size", "extra", "+", drawn=True)
WINDOW = Size("data.window_size", "window", "w", drawn=False)


@dataclass(frozen=True)
class Estimator:
    """One value of `algorithm.adv_estimator`.

    Args:
        name: the value.
        formula: what gives the advantages; None: verl's own code does.
        entry: the entry point that has it, a key of TRAINERS.
        label: its name in figures and sentences; empty: `name`.
        title: the first words of its scripts' headers; empty: `label`.
        signal: what trains, for the headers: "the mean reward of its query's rollouts as the signal". {extra} and {window}
            stand for the arm's numbers.
        size: the last number of its arms' names.
        divides_by_std: whether `algorithm.norm_adv_by_std_in_grpo` is read.
        discounts: whether `algorithm.gamma` is read.
        requires: key: (the one value that it works with, why).
        needs_several: why one response per query breaks it; empty: it does not.
        refused: why no run can use it; empty: runs can.

    Raises:
        ValueError: there is no such entry point.
    """

    name: str
    formula: Callable[..., tuple[torch.Tensor, torch.Tensor]] | None = None
    entry: str = "grpo"
    label: str = ""
    title: str = ""
    signal: str = ""
    size: Size | None = None
    divides_by_std: bool = False
    discounts: bool = False
    requires: Mapping[str, tuple[object, str]] = field(default_factory=dict, hash=False)
    needs_several: str = ""
    refused: str = ""

    def __post_init__(self) -> None:
        if self.entry not in TRAINERS:
            raise ValueError(f"estimator {self.name}: there is no entry point {self.entry!r}; choose {', '.join(TRAINERS)}")
        object.__setattr__(self, "label", self.label or self.name)
        object.__setattr__(self, "title", self.title or self.label)

    def advantages(self, **given: Any) -> torch.Tensor:
        """(S, T): the formula, called with those of the given arguments that it takes.

        Every trainer gives token_level_rewards, response_mask, index and norm_adv_by_std_in_grpo; what else there is, each
        trainer's `estimator_inputs` says.
        """
        takes = inspect.signature(self.formula).parameters
        if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in takes.values()):
            given = {name: value for name, value in given.items() if name in takes}
        return self.formula(**given)[0]


@cache
def estimators() -> Mapping[str, Estimator]:
    """Every estimator by its name.

    Raises:
        ValueError: two entries have one name.
    """
    found: dict[str, Estimator] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name.startswith("core_algos_"):
            for one in import_module(f"{__package__}.{module.name}").ENTRIES:
                if one.name in found:
                    raise ValueError(f"{module.name}.py: there is an estimator {one.name} already; give it another name")
                found[one.name] = one
    return found


def ours(entry: str | None = None) -> list[str]:
    """The names of the estimators whose formula is here, of one entry point if given."""
    return [one.name for one in estimators().values() if one.formula and entry in (None, one.entry)]


def usable(entry: str | None = None) -> list[str]:
    """The names that a run can be started with, of one entry point if given."""
    return [one.name for one in estimators().values() if not one.refused and entry in (None, one.entry)]


def size_of(name: str) -> Size | None:
    """The last number in the names of an estimator's arms; None if they hold none, or the estimator is unknown."""
    one = estimators().get(name)
    return one.size if one else None


def extra_responses(config: DictConfig) -> int:
    """Responses per query that are drawn and scored beside the trained ones."""
    size = size_of(config.algorithm.adv_estimator)
    return OmegaConf.select(config, size.key, default=0) if size is not None and size.drawn else 0


def check_script(scripted: Iterable[str], user: Iterable[str] = ()) -> None:
    """A script, or its user, gives the number that its arm is named by: a default would run in silence.

    Raises:
        UserError: it is missing.
    """
    own, typed = (dict(text.lstrip("+").partition("=")[::2] for text in part) for part in (scripted, user))
    name = own.get("algorithm.adv_estimator", "")
    size = size_of(name)
    if size is not None and size.key not in own | typed:
        variable = size.key.rpartition(".")[2]
        raise UserError(f"{size.key} is not given, and algorithm.adv_estimator={name} needs it: the script must set {variable}")
