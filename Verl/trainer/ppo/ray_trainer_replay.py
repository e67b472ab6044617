"""The replay arms: a query's own past rewards are its baseline."""

from typing import Any

import torch

from Verl.trainer.ppo.core_algos_replay import compute_tracked_outcome_advantage
from Verl.trainer.ppo.ray_trainer_base import RayTrainer
from Verl.trainer.ppo.reward_history import RewardHistory
from Verl.trainer.ppo.rollouts import PADDING, Rollouts


class RayTrainerReplay(RayTrainer):
    """The estimators over a query's window of rewards, and their declared variants (`algorithm.replay`)."""

    def __init__(self, config, *args):
        super().__init__(config, *args)
        self.history = RewardHistory(config.data.window_size, config.algorithm.replay.decay)

    def advantages(self, rewards: torch.Tensor, mask: torch.Tensor, rollouts: Rollouts) -> tuple[torch.Tensor, dict]:
        replay, keys = self.config.algorithm.replay, rollouts.query_keys()
        if replay.include_current:
            self._remember(rollouts)
        if replay.baseline == "window":
            advantages, _ = super().advantages(rewards, mask, rollouts)
        else:
            values = self.history.values(keys, replay.baseline, replay.min_history)
            divide = self.config.algorithm.norm_adv_by_std_in_grpo
            advantages, _ = compute_tracked_outcome_advantage(rewards, mask, values, norm_adv_by_std_in_grpo=divide)
        metrics = self._metrics(keys)
        if not replay.include_current:
            self._remember(rollouts)
        return advantages, metrics

    def estimator_inputs(self, rollouts: Rollouts) -> dict[str, Any]:
        windows = self.history.windows(rollouts.query_keys())
        return {"histories": windows, "min_history": self.config.algorithm.replay.min_history}

    def _remember(self, rollouts: Rollouts) -> None:
        """Adds the round's rewards, those of queries that dynamic sampling threw away too: they say how the query fares.

        Rows that verl has added to fill a short batch are no answers to a query.
        """
        answers = rollouts.take([row for row, uid in enumerate(rollouts.uids) if not uid.startswith(PADDING)])
        for part in (answers, rollouts.filtered):
            if part is not None:
                self.history.add(part.query_keys(), part.rewards, self.global_steps)

    def _metrics(self, keys) -> dict[str, float]:
        if self.config.algorithm.replay.baseline == "window":
            counts = [len(window) for window in self.history.windows(keys)]
        else:
            counts = self.history.seen(keys)
        enough = self.config.algorithm.replay.min_history
        return {
            "replay/baseline_coverage": sum(count >= enough for count in counts) / len(counts),
            "replay/window_filled": sum(counts) / len(counts),
            "replay/staleness_steps": self.history.staleness(keys, self.global_steps),
            "replay/queries_seen": float(len(self.history)),
        }

    def algorithm_state(self) -> dict:
        return {"history": self.history.state_dict()}

    def load_algorithm_state(self, state: dict) -> None:
        self.history.load_state_dict(state["history"])
