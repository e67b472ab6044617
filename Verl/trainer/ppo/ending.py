"""How a run ends: at its last step, with its epochs, by a budget or its patience, or because it was asked to stop.

verl evaluates and saves at the step that `total_training_steps` names (verl 0.9.1, `PPOTrainer.fit`). A run that ends
otherwise gets here what it would lack: the evaluation of every set that its last line does not have, and a checkpoint.
"""

from typing import Protocol

from Verl.trainer.best import VALIDATION, best_trained, evaluations_since
from Verl.trainer.interruption import REQUEST, Interrupted
from Verl.trainer.ppo.checkpoints import Checkpoints, EvaluatedTrainer


class SavedTrainer(EvaluatedTrainer, Protocol):
    """A trainer that also writes checkpoints."""

    checkpoints: Checkpoints


class Ending:
    """Decides which step of one trainer is the last, and sees to it that it is evaluated and saved."""

    def __init__(self, trainer: SavedTrainer):
        self.trainer = trainer

    def limit_to_epochs(self) -> None:
        """The run's steps are those of its epochs, where fewer come than were asked for: prompts that are too long are left
        out when the data is read, and only then is it known how many steps an epoch has."""
        trainer, settings = self.trainer, self.trainer.config.trainer
        bound = trainer.steps_per_epoch * settings.total_epochs
        if bound >= trainer.total_training_steps:
            return
        trainer.run_log.console.say(
            f"trainer.total_epochs={settings.total_epochs} ends this run at step {bound}, not {trainer.total_training_steps}: "
            f"{len(trainer.train_dataset)} training questions are left, those with too long a prompt are not"
        )
        trainer.total_training_steps = bound
        trainer.config.actor_rollout_ref.actor.optim.total_training_steps = bound  # of the learning rate's schedule

    def begin(self) -> None:
        """Before the first step of this process: a budget that a run had used up when it was cut ends it here."""
        self._record_best()  # of the log as a resume has cut it
        if why := self._used_up():
            self.trainer.total_training_steps = min(self.trainer.total_training_steps, self.trainer.run_log.last_step)
            self.trainer.run_log.describe(ended_by=why)

    def after_line(self) -> None:
        """Once a step's line is in the log: its checkpoint, and whether the run goes on.

        Raises:
            Interrupted: if the run was asked to stop and this was not its last step anyway.
        """
        trainer, step = self.trainer, self.trainer.global_steps
        goes_on = step < trainer.total_training_steps
        stop = REQUEST.made and goes_on
        if self._is_best() or (stop and step > 0):
            trainer._save_checkpoint()
        trainer.checkpoints.commit()
        if stop:
            raise Interrupted(REQUEST.by)
        if goes_on and (why := self._used_up()):
            trainer.run_log.console.say(f"{why}: this was the last step")
            trainer.total_training_steps = step
            trainer.run_log.describe(ended_by=why)

    def _used_up(self) -> str | None:
        """Which limit the run has reached, in words; None: it goes on."""
        trainer, limits = self.trainer, dict(self.trainer.config.budget)
        patience = limits.pop("patience")
        if budget := trainer.ledger.budget_reached(**limits):
            return f"budget.{budget}={limits[budget]} is used up"
        if patience is None or VALIDATION not in trainer.run_log.last_record:
            return None
        since = evaluations_since(trainer.run_log.values(VALIDATION))
        if since < patience:
            return None
        return f"budget.patience={patience} is used up ({since} evaluations on validation without a better score)"

    def _record_best(self) -> int | None:
        """The best trained step on validation into run.json, where that is asked for; None: it is not, or there is none."""
        trainer = self.trainer
        if not trainer.config.trainer.keep_best and trainer.config.budget["patience"] is None:
            return None
        scores = trainer.run_log.values(VALIDATION)
        best = best_trained(scores)
        trainer.run_log.describe(best=None if best is None else {"step": best, VALIDATION: scores[best]})
        return best

    def _is_best(self) -> bool:
        """Whether the last line makes its step the best one, and its checkpoint is to be written for that."""
        record, keep = self.trainer.run_log.last_record, self.trainer.config.trainer.keep_best
        if VALIDATION not in record or self._record_best() != record["step"]:
            return False
        kept = "; its checkpoint is kept" if keep else ""
        text = f"  step {record['step']}: the best on validation so far, {float(record[VALIDATION]):.3f}{kept}"
        self.trainer.run_log.console.say(text)
        return bool(keep)

    def close(self) -> None:
        """When verl's loop has ended without its own last step: what that would have done, unless it is there."""
        trainer = self.trainer
        if trainer.run_log.last_step < 0:
            return
        after, trainer.global_steps = trainer.global_steps, trainer.run_log.last_step
        try:
            there = [part.name for part in trainer.evaluator.sets if part.complete_in(trainer.run_log.last_record)]
            missing = trainer.evaluator.run(trainer.global_steps, last=True, besides=there)
            trainer.run_log.amend(missing)
            wanted = (VALIDATION in missing and self._is_best()) or trainer.config.trainer.save_freq > 0
            saved = trainer.checkpoints.steps()[-1:] == [trainer.global_steps]
            if wanted and trainer.global_steps > 0 and not saved:
                trainer._save_checkpoint()
                trainer.checkpoints.commit()
        finally:
            trainer.global_steps = after
