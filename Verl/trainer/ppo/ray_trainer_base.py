"""One step of the study: queries, rollouts, advantage, update, metrics.

All three algorithms share this trainer; what one adds is what its estimators are given besides (`estimator_inputs`) and the
state that it keeps between steps (`algorithm_state`). Everything else is here and in verl, once, so that two arms can only
differ in what they declare.

The overridden methods are verl's (verl/trainer/ppo/v1/trainer_base.py), in the order in which its `step` calls them.
docs/way-of-a-reward.md follows a reward through them.
"""

from typing import Any

import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import TensorDict
from tensordict.tensorclass import NonTensorStack
from transfer_queue import KVBatchMeta
from verl.utils.debug import marked_timer
from verl.utils.metric import reduce_metrics
from verl.utils.model import get_generation_config
from verl.workers.utils.padding import response_to_nested

from Verl.adapter.generation import end_tokens
from Verl.adapter.worker import PolicyWorker
from Verl.trainer.ppo import ledger, rollout_correction
from Verl.trainer.ppo.conditions import FILTERS_GROUPS, updates_once
from Verl.trainer.ppo.controls import shuffled_rewards
from Verl.trainer.ppo.dynamic_sampling import DynamicSampler, different_questions
from Verl.trainer.ppo.estimators import estimators, extra_responses
from Verl.trainer.ppo.loss_mask import LossMask, cut_off, not_trained_on
from Verl.trainer.ppo.overlong import Overlong
from Verl.trainer.ppo.recorded_trainer import RecordedTrainer
from Verl.trainer.ppo.rollouts import Rollouts, split_extra
from Verl.trainer.run_log import RunLog


class RayTrainer(RecordedTrainer):
    """Base of RayTrainerGRPO, RayTrainerBandit and RayTrainerReplay."""

    worker_class = PolicyWorker

    def __init__(self, config: DictConfig, run_log: RunLog):
        rollout_correction.choose_loss(config)
        super().__init__(config, run_log)
        self.rollouts: Rollouts | None = None  # this step's trained responses, in the order of the batch
        self.loss_mask: LossMask | None = None  # the tokens that this step's loss is taken over
        self.overlong = Overlong.of(config)
        self.sampler: DynamicSampler | None = None
        self._drawn = 0  # queries of this step so far

    def estimator_inputs(self, rollouts: Rollouts) -> dict[str, Any]:
        """What an algorithm adds: arguments of its estimators' formulas beyond what `advantages` gives to all."""
        return {}

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        self.role_worker_mapping = {role: ray.remote(self.worker_class) for role in self.role_worker_mapping}

    # ---- queries and rollouts ---------------------------------------------------------------------------------

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        self._end_tokens = end_tokens(self.tokenizer, get_generation_config(self.config.actor_rollout_ref.model.path))
        if FILTERS_GROUPS(self.config):
            questions = different_questions(self.train_dataset)
            refill, read = self._add_prompts_to_generate, self._read
            self.sampler = self.replay_buffer = DynamicSampler(self.replay_buffer, self.config, refill, read, questions)

    def prepare_step(self) -> dict:
        self._drawn = 0
        if self.sampler is not None:
            self.sampler.begin_step()
        # A manager that draws the whole batch at once does it here, where verl has no timer.
        with marked_timer("gen", self.timing_raw):
            return super().prepare_step()

    def _fetch_one_gen_batch(self) -> TensorDict:
        """verl's batch of queries, under ids that say step and place instead of random ones, and sort in that order."""
        batch = super()._fetch_one_gen_batch()
        while self.sampler is not None and not self.sampler.is_new(batch):  # an epoch has ended within the step
            batch = super()._fetch_one_gen_batch()
        places = range(self._drawn, self._drawn + len(batch))
        self._drawn = places.stop
        batch["uid"] = NonTensorStack(*[f"{self.global_steps:08d}-{place:06d}" for place in places])
        if extra := extra_responses(self.config):
            per_query = self.config.actor_rollout_ref.rollout.n + extra
            batch["__rollout_n__"] = NonTensorStack(*[per_query] * len(batch))
        return batch

    def _read(self, fetched: Rollouts) -> Rollouts:
        """What was drawn, with the rewards that train and whether the length limit ended a response."""
        self.failed_rewards.check(fetched, f"step {self.global_steps}")
        fetched.truncated = cut_off(fetched.responses, self._end_tokens)
        return fetched if self.overlong is None else self.overlong.penalised(fetched)

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, *args, **kwargs) -> KVBatchMeta:
        """verl's first step after the rollout, and so the place to read what came back and part trained from extra."""
        rollouts = self._read(Rollouts.fetch(batch))
        if self.overlong is not None:
            rollouts.write_rewards(batch)
            metrics.update(self.overlong.metrics(rollouts))
        trained, self.rollouts = split_extra(batch, rollouts, self.config.actor_rollout_ref.rollout.n)
        self.rollouts.filtered = self.sampler.filtered if self.sampler is not None else None
        if self.config.algorithm.shuffle_rewards:
            self.rollouts = shuffled_rewards(self.rollouts, self.config.seed, self.global_steps)
            self.rollouts.write_rewards(trained)
        metrics.update(ledger.rollout_metrics(self.rollouts))
        return super()._balance_batch(trained, metrics, *args, **kwargs)

    # ---- advantage --------------------------------------------------------------------------------------------

    def advantages(self, rewards: torch.Tensor, mask: torch.Tensor, rollouts: Rollouts) -> tuple[torch.Tensor, dict] | None:
        """(S, T) advantages and metrics of this step, or None to let verl's own estimator do it."""
        algorithm = self.config.algorithm
        if (estimator := estimators()[algorithm.adv_estimator]).formula is None:
            return None
        common = {"token_level_rewards": rewards, "response_mask": mask, "index": rollouts.uids}
        common["norm_adv_by_std_in_grpo"] = algorithm.norm_adv_by_std_in_grpo
        return estimator.advantages(**common, **self.estimator_inputs(rollouts)), {}

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """Our estimators, on rewards that the rollout already brought here; verl's own estimators by verl's code."""
        self.rollouts = self.rollouts.aligned_with(batch.keys)
        self.loss_mask = LossMask.fetch(batch)
        mask = self.loss_mask.padded
        result = self.advantages(self.rollouts.token_level_rewards(mask), mask, self.rollouts)
        if result is not None:
            advantages, own_metrics = result
            metrics.update(own_metrics)
            metrics.update(rollout_correction.correct(batch, self.config, self.loss_mask))
        else:
            batch = super()._compute_advantage(batch, metrics)
            rollout_correction.take_over(batch, self.config, self.loss_mask)
            advantages = tq.kv_batch_get(batch.keys, batch.partition_id, ["advantages"])["advantages"].to_padded_tensor(0.0)
        unwanted = not_trained_on(self.rollouts.rewards, self.rollouts.truncated, self.config.algorithm)
        if any(unwanted):
            workers = max(self.actor_rollout_wg._dispatch_info["actor"]) + 1
            self.loss_mask.leave_out_where(unwanted, self.config, workers)
        masked = self.loss_mask.left_out
        advantages = advantages.masked_fill(masked.unsqueeze(1), 0.0)
        metrics.update({**ledger.advantage_metrics(advantages, mask), ledger.MASKED: float(masked.sum())})
        rows = response_to_nested(advantages, self.loss_mask.original)
        fields = {"advantages": rows} if result is None else {"advantages": rows, "returns": rows}
        return tq.kv_batch_put(batch.keys, batch.partition_id, TensorDict(fields, batch_size=len(batch)))

    # ---- update and metrics -----------------------------------------------------------------------------------

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        return batch if updates_once(self.config) else super()._compute_old_log_prob(batch, metrics)

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        takes_own = updates_once(self.config)
        if takes_own and self.loss_mask.changed:
            fields = TensorDict({"metric_mask": self.loss_mask.original}, batch_size=len(batch))
            tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)
            if batch.fields is not None:  # the names that the update is sent
                batch.fields = list(dict.fromkeys([*batch.fields, *fields.keys()]))
        with self.loss_mask.applied(batch):
            batch = super()._update_actor(batch, metrics)
        if takes_own:
            parts = self.actor_rollout_wg.own_metrics()
            metrics.update(reduce_metrics({name: [part[name] for part in parts] for name in parts[0]}))
        batch.fields = None
        return batch

    def _compute_metrics(self, batch, metrics, timing_raw, global_steps, epoch) -> None:
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        metrics.update(self.ledger.step(self.rollouts, metrics))
        self.run_log.samples(self.rollouts, global_steps)
