"""The best step of a run by its validation questions, and how long none has been better. Without torch.

Both are functions of the run's jsonl alone, which a resumed run cuts back to its checkpoint: so a run that was cut and
resumed keeps and ends as one that was not. Test scores are never looked at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from omegaconf import DictConfig

from Verl.errors import UserError
from Verl.trainer.data_checks import same_file

VALIDATION = "eval/validation/pass@1"
KEEP, PATIENCE = "trainer.keep_best", "budget.patience"


def scores_of(values: Mapping[int, float]) -> dict[int, float]:
    """Step -> score, in order, of those that are numbers."""
    return {step: value for step, value in sorted(values.items()) if math.isfinite(value)}


def best_step(values: Mapping[int, float]) -> int | None:
    """The step with the highest score, of equal ones the first; None without any."""
    scores = scores_of(values)
    return max(scores, key=lambda step: (scores[step], -step), default=None)


def best_trained(values: Mapping[int, float]) -> int | None:
    """The same among trained steps: before the first there is no checkpoint."""
    return best_step({step: value for step, value in values.items() if step > 0})


def evaluations_since(values: Mapping[int, float]) -> int:
    """Evaluations after the best one, that before training among those that count."""
    best = best_step(values)
    return 0 if best is None else sum(step > best for step in scores_of(values))


def check_best(config: DictConfig) -> None:
    """Refuse to choose by validation where nothing is validated, and a patience that can't end the run.

    Raises:
        UserError: one sentence with the key and what to do.
    """
    patience, every = config.budget.patience, config.evaluation.val_freq
    requested = f"{KEEP}=true" if config.trainer.keep_best else f"{PATIENCE}={patience}" if patience is not None else ""
    if not requested:
        return
    if every <= 0 or config.evaluation.val_questions == 0:
        key = "evaluation.val_freq" if every <= 0 else "evaluation.val_questions"
        value = every if every <= 0 else 0
        raise UserError(
            f"{requested} chooses by the validation questions, and {key}={value} evaluates none: set {key}, or leave it out "
            "(test questions are never chosen by)"
        )
    total = config.trainer.total_training_steps
    if patience is not None and total is not None and patience * every >= total:
        raise UserError(
            f"{PATIENCE}={patience} changes nothing: {patience} evaluations on validation take {patience * every} steps "
            f"(evaluation.val_freq={every}), and the run ends at step {total}; lower one of the two, or leave it out"
        )


def check_best_files(config: DictConfig) -> None:
    """Refuse to choose by a validation file that is the test file.

    Raises:
        UserError: the file, by its content.
    """
    if not config.trainer.keep_best and config.budget.patience is None:
        return
    if pair := same_file(config, "validation", "test"):
        key = KEEP if config.trainer.keep_best else PATIENCE
        raise UserError(
            f"data.val_files={pair[0]} is the file of data.test_files ({pair[1]}), and {key} would choose by test questions: "
            "give validation questions of their own, or leave it out"
        )
