"""What evaluation, checkpoints and the end of a run use of the trainer that they serve.

They are parts of a trainer (recorded_trainer.py) and stand below it, so that they know it by this interface alone.
"""

from typing import Any, Protocol

from omegaconf import DictConfig

from Verl.trainer.ppo.failed_rewards import FailedRewards
from Verl.trainer.ppo.ledger import Ledger
from Verl.trainer.run_log import RunLog


class ServedTrainer(Protocol):
    """Attributes of verl's PPOTrainerSync (0.9.1), and the records that RecordedTrainer adds."""

    config: DictConfig
    global_steps: int
    total_training_steps: int
    steps_per_epoch: int
    tokenizer: Any
    processor: Any
    train_dataset: Any
    val_dataset: Any
    agent_loop_manager: Any
    replay_buffer: Any
    run_log: RunLog
    ledger: Ledger
    failed_rewards: FailedRewards

    def algorithm_state(self) -> dict: ...
    def load_algorithm_state(self, state: dict) -> None: ...
    def _save_checkpoint(self) -> None: ...
