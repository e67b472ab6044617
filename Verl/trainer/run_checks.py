"""Checks of how a run begins and ends: what it resumes from, and whether the steps asked for will come."""

from pathlib import Path

from omegaconf import DictConfig

from Verl.errors import UserError
from Verl.trainer.ppo.checkpoint_files import STATE, checkpoint_steps
from Verl.trainer.run_folder import goes_on

_MODE, _FROM = "trainer.resume_mode", "trainer.resume_from_path"


def settle_resume(config: DictConfig) -> None:
    """A path alone means that it is resumed from; a slash at its end means nothing.

    Raises:
        UserError: if mode and path contradict each other.
    """
    settings = config.trainer
    if settings.resume_from_path:
        settings.resume_from_path = str(settings.resume_from_path).rstrip("/") or "/"
        if settings.resume_mode == "disable":
            raise UserError(
                f"{_MODE}=disable and {_FROM}={settings.resume_from_path} exclude each other: leave one of them out"
            )
        if settings.resume_mode == "auto":
            settings.resume_mode = "resume_path"


def check_resume(config: DictConfig) -> None:
    """Refuse a mode that is unknown, and a path that is not a whole checkpoint."""
    mode, path = config.trainer.resume_mode, config.trainer.resume_from_path
    if mode not in ("auto", "disable", "resume_path"):
        raise UserError(f"{_MODE}={mode} is unknown: choose auto, disable or resume_path")
    if mode != "resume_path" or goes_on(config):
        return
    if not path or not Path(path).is_dir():
        raise UserError(f"{_FROM}={path} is not a folder: give a .../global_step_<k> of a checkpoint")
    folder = Path(path)
    if not folder.name.removeprefix("global_step_").isdigit():
        newest = next((f"{place}/global_step_{steps[-1]}" for place in (folder, folder / "checkpoints")
                       if (steps := checkpoint_steps(place))), None)  # fmt: skip
        hint = f"; did you mean {newest}?" if newest else ""
        raise UserError(f"{_FROM}={path} is not a checkpoint: its name must be global_step_<k>{hint}")
    if not (folder / STATE).is_file():
        raise UserError(
            f"{_FROM}={path} is not a whole checkpoint of this system ({STATE} is missing): give one that has it"
        )
    step, total = int(folder.name.removeprefix("global_step_")), config.trainer.total_training_steps
    if total is not None and step >= total:
        raise UserError(
            f"{_FROM}={path} is of step {step}, and trainer.total_training_steps={total} leaves nothing to train: raise it"
        )


def steps_by_epochs(config: DictConfig, questions: int) -> int:
    """Steps that `trainer.total_epochs` passes over `questions` training questions make; a last, short batch is left out."""
    return config.trainer.total_epochs * (questions // config.data.train_batch_size)


def check_epochs(config: DictConfig, questions: int, steps: int | None = None) -> None:
    """Refuse steps that would not come: the run ends with its epochs at the latest.

    Args:
        questions: rows of the training data. Where some are left out later (prompts that are too long), the run may still
            end by its epochs; it then says so and ends as any other (Verl/trainer/ppo/ending.py).
        steps: asked for instead of the config's.
    """
    requested, size = steps or config.trainer.total_training_steps, config.data.train_batch_size
    bound = steps_by_epochs(config, questions)
    if requested is not None and requested > bound:
        needed = -(-requested // max(1, questions // size))
        raise UserError(
            f"trainer.total_training_steps={requested} is more than trainer.total_epochs={config.trainer.total_epochs} give "
            f"({bound} steps of {size} from {questions} questions): set trainer.total_epochs={needed}, or "
            f"trainer.total_training_steps={bound}"
        )
