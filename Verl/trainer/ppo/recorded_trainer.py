"""verl 0.9.1's synchronous V1 trainer with our records: log, evaluation, checkpoints, and how a run ends.

Nothing here says what is trained on; that is ray_trainer_base.py.
"""

from typing import Any

from omegaconf import DictConfig
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from Verl.trainer.ppo.checkpoints import Checkpoints
from Verl.trainer.ppo.ending import Ending
from Verl.trainer.ppo.evaluation import Evaluator
from Verl.trainer.ppo.failed_rewards import FailedRewards
from Verl.trainer.ppo.ledger import Ledger
from Verl.trainer.run_log import RunLog


class RecordedTrainer(PPOTrainerSync):
    """The overridden methods are verl's (verl/trainer/ppo/v1/trainer_base.py), called by its `fit`."""

    def __init__(self, config: DictConfig, run_log: RunLog):
        super().__init__(config)
        self.run_log, self.ledger, self.failed_rewards = run_log, Ledger(), FailedRewards()
        self.checkpoints, self.ending = Checkpoints(self), Ending(self)

    def algorithm_state(self) -> dict:
        """What the algorithm must find again after a resume; plain numbers and lists."""
        return {}

    def load_algorithm_state(self, state: dict) -> None:
        """Takes back what `algorithm_state` gave."""

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        self.ending.limit_to_epochs()
        self.evaluator = Evaluator(self)

    @property
    def logger(self) -> RunLog:
        """Where verl's fit() sends each step's metrics: our run log, which hands them on to verl's own loggers."""
        return self.run_log

    @logger.setter
    def logger(self, tracking: Any) -> None:
        self.run_log.attach(tracking, total_steps=self.total_training_steps)

    def after_line(self) -> None:
        """Called once a step's line is in the log."""
        self.ending.after_line()

    def on_train_begin(self) -> None:
        super().on_train_begin()
        self.ending.begin()

    def on_train_end(self) -> None:
        super().on_train_end()
        self.ending.close()

    def _validate(self) -> dict[str, float]:
        return self.evaluator.run(self.global_steps, last=self.global_steps >= self.total_training_steps)

    def _save_checkpoint(self) -> None:
        self.checkpoints.save(super()._save_checkpoint)

    def _load_checkpoint(self) -> None:
        self.checkpoints.load(super()._load_checkpoint)
