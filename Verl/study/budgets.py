"""Equal cost: `--budget tokens=N`, whether every arm can reach it, and against what arms of one budget are compared.

What counts is the run's ledger (Verl/trainer/ppo/ledger.py): everything that the policy drew for training, extra responses
and the groups that dynamic sampling threw away among it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from omegaconf import DictConfig

from Verl.errors import UserError
from Verl.study.plan import Workload

BUDGETS = {"tokens": "generated_tokens", "generated_tokens": "generated_tokens", "gradient_samples": "gradient_samples",
           "hours": "hours"}  # fmt: skip
_AXES = {"generated_tokens": "tokens", "gradient_samples": "gradient_samples", "hours": "hours"}


def read(texts: Sequence[str]) -> dict[str, str]:
    """Budget's name -> number as typed.

    Raises:
        UserError: a text that is no budget.
    """
    found = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in BUDGETS:
            raise UserError(f"--budget {text}: {name!r} is unknown; choose tokens=N, gradient_samples=N or hours=N")
        try:
            good = float(value) > 0
        except ValueError:
            good = False
        if not good:
            raise UserError(f"--budget {text}: give a number above 0")
        found[BUDGETS[name]] = value
    return found


def overrides(texts: Sequence[str]) -> list[str]:
    return [f"budget.{name}={value}" for name, value in read(texts).items()]


def axis(texts: Sequence[str]) -> str:
    """What arms are compared at: the first budget's axis, or steps without one."""
    return next((_AXES[name] for name in read(texts)), "steps")


def refuse_out_of_reach(texts: Sequence[str], arm: str, work: Workload, config: DictConfig, questions: int) -> None:
    """Refuse a budget that an arm's steps end before: it would be compared at less than the others spend.

    Args:
        questions: of the training data, which bound what dynamic sampling draws in a step.
    """
    requested = read(texts)
    most = {"generated_tokens": work.tokens * _drawn_again(config, questions, work.queries),
            "gradient_samples": work.steps * work.queries * work.rollouts}  # fmt: skip
    if not requested or any(name not in most or float(value) <= most[name] for name, value in requested.items()):
        return
    name, value = next(iter(requested.items()))
    needed = math.ceil(float(value) * work.steps / most[name])
    raise UserError(
        f"--budget {_AXES[name]}={value}: {arm} can't spend that in its {work.steps} steps ({most[name]:,.0f} at most), and "
        f"would end at less than the others: give --steps {needed} or more"
    )


def _drawn_again(config: DictConfig, questions: int, queries: int) -> float:
    """How many times a batch's queries a step draws at most."""
    groups = config.algorithm.get("filter_groups")
    if not groups or not groups.enable:
        return 1.0
    everything = max(1.0, questions / queries)
    return min(everything, groups.max_num_gen_batches) if groups.max_num_gen_batches > 0 else everything
