"""How a run ends: at its last step, with its epochs, by a budget, or because it was asked to stop.

verl evaluates and saves at the step that `total_training_steps` names (verl 0.9.1, `PPOTrainer.fit`). A run that ends
otherwise gets here what it would lack: the evaluation of every set that its last line does not have, and a checkpoint.
"""

from typing import TYPE_CHECKING

from Verl.trainer.interruption import REQUEST, Interrupted

if TYPE_CHECKING:
    from Verl.trainer.ppo.ray_trainer_base import RayTrainer


class Ending:
    """Decides which step of one trainer is the last, and sees to it that it is evaluated and saved."""

    def __init__(self, trainer: "RayTrainer"):
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
        if self.trainer.ledger.budget_reached(**self.trainer.config.budget):
            self.trainer.total_training_steps = min(self.trainer.total_training_steps, self.trainer.run_log.last_step)

    def after_line(self) -> None:
        """Once a step's line is in the log: its checkpoint, and whether the run goes on.

        Raises:
            Interrupted: if the run was asked to stop and this was not its last step anyway.
        """
        trainer, step = self.trainer, self.trainer.global_steps
        goes_on = step < trainer.total_training_steps
        stop = REQUEST.made and goes_on
        if stop and step > 0:
            trainer._save_checkpoint()
        trainer.checkpoints.commit()
        if stop:
            raise Interrupted(REQUEST.by)
        if goes_on and (budget := trainer.ledger.budget_reached(**trainer.config.budget)):
            trainer.run_log.console.say(f"budget.{budget}={trainer.config.budget[budget]} is used up: this was the last step")
            trainer.total_training_steps = step

    def close(self) -> None:
        """When verl's loop has ended without its own last step: what that would have done, unless it is there."""
        trainer = self.trainer
        if trainer.run_log.last_step < 0:
            return
        after, trainer.global_steps = trainer.global_steps, trainer.run_log.last_step
        try:
            there = [part.name for part in trainer.evaluator.sets if part.complete_in(trainer.run_log.last_record)]
            trainer.run_log.amend(trainer.evaluator.run(trainer.global_steps, last=True, besides=there))
            saved = trainer.checkpoints.steps()[-1:] == [trainer.global_steps]
            if trainer.config.trainer.save_freq > 0 and trainer.global_steps > 0 and not saved:
                trainer._save_checkpoint()
                trainer.checkpoints.commit()
        finally:
            trainer.global_steps = after
