"""The trainer that all three algorithms share: verl 0.9.1's synchronous V1 trainer, with what the study needs on top.

What an algorithm adds is three small methods: how many responses it draws per query (`extra_rollouts`), what advantage
it gives them (`advantages`) and the state it keeps between steps (`algorithm_state`). Everything else (queries,
rollouts, seeds, reference, loss, optimizer, evaluation, checkpoints, logs) is here and in verl, once, so that two arms
can only differ in what they declare.

verl's methods that are overridden (verl/trainer/ppo/v1/trainer_base.py; Verl/adapter/interface.py lists them):
`_setup`, `_init_resource_pool_mgr`, `_init_dataloader`, `_fetch_one_gen_batch`, `_balance_batch`, `_compute_old_log_prob`,
`_compute_ref_log_prob`, `_compute_advantage`, `_update_actor`, `_compute_metrics`, `_validate`, `_save_checkpoint`,
`_load_checkpoint`, `on_train_begin`, `on_train_end`.
"""

from typing import Any

import ray
import torch
import transfer_queue as tq
from tensordict import TensorDict
from tensordict.tensorclass import NonTensorStack
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.debug import marked_timer
from verl.utils.model import get_generation_config
from verl.workers.utils.padding import response_to_nested

from Verl.adapter import own_log_probs
from Verl.adapter.balance import plain_workloads
from Verl.adapter.batch_fields import FOR_THE_UPDATE
from Verl.adapter.batched_loop import without_load_balancer
from Verl.adapter.local_queue import Ends, LocalQueue
from Verl.trainer.conditions import BYPASSES, FILTERS_GROUPS, SEVERAL_UPDATES, corrects_rollouts
from Verl.trainer.ppo import ledger, rollout_correction
from Verl.trainer.ppo.checkpoints import Checkpoints
from Verl.trainer.ppo.controls import shuffled_rewards
from Verl.trainer.ppo.dynamic_sampling import DynamicSampler, different_questions
from Verl.trainer.ppo.ending import Ending
from Verl.trainer.ppo.estimators import ours
from Verl.trainer.ppo.evaluation import Evaluator
from Verl.trainer.ppo.failed_rewards import FailedRewards
from Verl.trainer.ppo.overlong import Overlong
from Verl.trainer.ppo.rollouts import Rollouts, split_extra
from Verl.trainer.ppo.truncation import LossMask, cut_off, end_tokens, mini_batches
from Verl.trainer.run_log import RunLog

PARTITION = "train"


class RayTrainer(PPOTrainerSync):
    """Base of RayTrainerGRPO, RayTrainerBandit and RayTrainerReplay."""

    def __init__(self, config, run_log: RunLog, queue: LocalQueue | None = None):
        """`queue`: where this process keeps the rollouts; None: in the transfer queue's own processes."""
        rollout_correction.choose_loss(config)
        super().__init__(config)
        self.run_log, self.queue = run_log, queue
        self.checkpoints = Checkpoints(self)
        self.ending, self.failed_rewards = Ending(self), FailedRewards()
        self.ledger = ledger.Ledger()
        self.rollouts: Rollouts | None = None  # this step's trained responses, in the order of the batch
        self.loss_mask: LossMask | None = None  # the tokens that this step's loss is taken over
        self.overlong = Overlong.of(config)
        self.sampler: DynamicSampler | None = None
        self._place = 0

    # ---- what an algorithm adds -------------------------------------------------------------------------------

    def extra_rollouts(self) -> int:
        """Responses per query that are drawn and scored but not trained on."""
        return 0

    def advantages(
        self, token_level_rewards: torch.Tensor, response_mask: torch.Tensor, rollouts: Rollouts
    ) -> tuple[torch.Tensor, dict[str, float]] | None:
        """(S, T) advantages and metrics of this step, or None to let verl's own estimator do it."""
        raise NotImplementedError

    def algorithm_state(self) -> dict:
        """What the algorithm must find again after a resume; plain numbers and lists."""
        return {}

    def load_algorithm_state(self, state: dict) -> None:
        """Takes back what `algorithm_state` gave."""

    # ---- set-up -----------------------------------------------------------------------------------------------

    def _setup(self) -> None:
        with without_load_balancer(self.config):
            super()._setup()
        for group in ("actor_rollout_wg", "ref_policy_wg"):
            if self.queue is not None and hasattr(self, group):
                setattr(self, group, Ends(getattr(self, group), self.queue))

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        if self.config.trainer.device == "cpu":
            from Verl.adapter.cpu_worker import CPUWorker

            self.role_worker_mapping = {role: ray.remote(CPUWorker) for role in self.role_worker_mapping}

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        self.ending.limit_to_epochs()
        self.evaluator = Evaluator(self)
        self._end_tokens = end_tokens(self.tokenizer, get_generation_config(self.config.actor_rollout_ref.model.path))
        if FILTERS_GROUPS(self.config):
            questions = different_questions(self.train_dataset)
            refill, read = self._add_prompts_to_generate, self._read
            self.sampler = self.replay_buffer = DynamicSampler(self.replay_buffer, self.config, refill, read, questions)

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

    # ---- queries and rollouts ---------------------------------------------------------------------------------

    def prepare_step(self) -> dict:
        self._place = 0
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
        size = len(batch)
        ids = [f"{self.global_steps:08d}-{self._place + row:06d}" for row in range(size)]
        self._place += size
        batch["uid"] = NonTensorStack(*ids)
        if self.extra_rollouts():
            per_query = self.config.actor_rollout_ref.rollout.n + self.extra_rollouts()
            batch["__rollout_n__"] = NonTensorStack(*[per_query] * size)
        return batch

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, *args, **kwargs) -> KVBatchMeta:
        """verl's first step after the rollout, and so the place to read what came back and part trained from extra."""
        rollouts = self._read(Rollouts.fetch(batch))
        if self.overlong is not None:
            rollouts.write_rewards(batch)
            metrics.update(self.overlong.metrics(rollouts))
        trained, self.rollouts, extra = split_extra(batch, rollouts, self.config.actor_rollout_ref.rollout.n)
        self.rollouts.extra, self.rollouts.filtered = extra, self.sampler.filtered if self.sampler is not None else None
        if self.config.algorithm.shuffle_rewards:
            self.rollouts = shuffled_rewards(self.rollouts, self.config.seed, self.global_steps)
            self.rollouts.write_rewards(trained)
        extra_keys = [key for key in batch.keys if key not in set(trained.keys)]
        if extra_keys:
            tq.kv_clear(keys=extra_keys, partition_id=PARTITION)
        metrics.update(ledger.rollout_metrics(self.rollouts))
        with plain_workloads():
            return super()._balance_batch(trained, metrics, *args, **kwargs)

    def _read(self, fetched: Rollouts) -> Rollouts:
        """What was drawn, with the rewards that train and whether the length limit ended a response."""
        self.failed_rewards.check(fetched, f"step {self.global_steps}")
        fetched.truncated = cut_off(fetched.responses, self._end_tokens)
        return fetched if self.overlong is None else self.overlong.penalised(fetched)

    # ---- old log-probabilities ---------------------------------------------------------------------------------

    def _updates_once(self) -> bool:
        """Whether the policy that is updated is still the one that the round began with, and nothing else asks for its
        log-probabilities beforehand: then the update's own forward pass gives them (Verl/adapter/own_log_probs.py)."""
        config, actor = self.config, self.config.actor_rollout_ref.actor
        return (
            config.actor_rollout_ref.old_log_probs == "auto"
            and config.trainer.device == "cpu"
            and not SEVERAL_UPDATES(config)
            and actor.use_dynamic_bsz  # verl's own passes, which fixed micro batches go through, want them beforehand
            and not corrects_rollouts(config)
            and not BYPASSES(config)
            and actor.policy_loss.loss_mode == "vanilla"
            and config.algorithm.adv_estimator in ours()
            and not config.algorithm.use_kl_in_reward
        )

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        return batch if self._updates_once() else super()._compute_old_log_prob(batch, metrics)

    def _compute_ref_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        return batch if self._updates_once() else super()._compute_ref_log_prob(batch, metrics)

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self._updates_once():
            batch.fields = list(FOR_THE_UPDATE)
        with self.loss_mask.applied(batch, keep_for_metrics=self._updates_once()):
            batch = super()._update_actor(batch, metrics)
        batch.fields = None
        own_log_probs.rename(metrics)
        return batch

    # ---- advantage --------------------------------------------------------------------------------------------

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """Our estimators, on rewards that the rollout already brought here; verl's own estimators by verl's code."""
        self.rollouts = self.rollouts.aligned_with(batch.keys)
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["response_mask"])
        self.loss_mask = LossMask.of(data["response_mask"])
        response_mask = self.loss_mask.original.to_padded_tensor(padding=0)
        result = self.advantages(self.rollouts.token_level_rewards(response_mask), response_mask, self.rollouts)
        corrects = corrects_rollouts(self.config)
        if result is not None:
            advantages, extra_metrics = result
            metrics.update(extra_metrics)
            if corrects:
                metrics.update(rollout_correction.correct(batch, self.config, self.loss_mask))
        else:
            batch = super()._compute_advantage(batch, metrics)
            if corrects:
                rollout_correction.take_over(batch, self.loss_mask)
            data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["advantages"])
            advantages = data["advantages"].to_padded_tensor(padding=0.0)
        return self._write_advantages(batch, metrics, advantages, response_mask, returns=result is not None)

    def _write_advantages(self, batch, metrics, advantages, response_mask, returns: bool) -> KVBatchMeta:
        """Advantages into the queue (`returns`: as returns too), 0 for responses that the loss leaves out."""
        if self.config.algorithm.mask_truncated:
            workers = max(self.actor_rollout_wg._dispatch_info["actor"]) + 1
            size = self.config.actor_rollout_ref.actor.ppo_mini_batch_size * self.config.actor_rollout_ref.rollout.n
            cut = [row for row, truncated in enumerate(self.rollouts.truncated) if truncated]
            self.loss_mask.leave_out(cut, mini_batches(len(batch), size, workers))
        left_out = self.loss_mask.left_out
        advantages = advantages.masked_fill(left_out.unsqueeze(1), 0.0)
        metrics.update(ledger.advantage_metrics(advantages, response_mask))
        metrics[ledger.MASKED] = float(left_out.sum())
        nested = response_to_nested(advantages, self.loss_mask.original)
        fields = TensorDict({"advantages": nested, **({"returns": nested} if returns else {})}, batch_size=len(batch))
        return tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)

    # ---- metrics, evaluation, checkpoints ---------------------------------------------------------------------

    def _compute_metrics(self, batch, metrics, timing_raw, global_steps, epoch) -> None:
        if own_log_probs.REFERENCE_SECONDS in metrics:  # it was computed in the update's call
            timing_raw["ref"] = metrics.pop(own_log_probs.REFERENCE_SECONDS)
            timing_raw["update_actor"] -= timing_raw["ref"]
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        metrics.update(self.ledger.step(self.rollouts, metrics))
        self.run_log.samples(self.rollouts, global_steps)

    def _validate(self) -> dict[str, float]:
        return self.evaluator.run(self.global_steps, last=self.global_steps >= self.total_training_steps)

    def _save_checkpoint(self) -> None:
        self.checkpoints.save(super()._save_checkpoint)

    def _load_checkpoint(self) -> None:
        self.checkpoints.load(super()._load_checkpoint)
