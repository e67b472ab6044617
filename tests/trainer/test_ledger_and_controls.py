"""What a step cost, counted by hand; budgets; the shuffled-reward control."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transfer_queue as tq
from tensordict import TensorDict

from Verl.adapter.nested import nested
from Verl.cpu.local_queue import installed
from Verl.reward.sources import MATH
from Verl.trainer.ppo.controls import shuffled_rewards
from Verl.trainer.ppo.evaluation import _metrics
from Verl.trainer.ppo.ledger import Ledger, advantage_metrics, rollout_metrics
from Verl.trainer.ppo.ray_trainer_replay import RayTrainerReplay
from Verl.trainer.ppo.reward_history import RewardHistory
from Verl.trainer.ppo.rollouts import SCORES, Rollouts, _score


def rollouts(rewards, uids, lengths, sessions=None):
    size = len(rewards)
    return Rollouts(
        keys=[f"{uid}_{row}_0" for row, uid in enumerate(uids)], uids=list(uids), sessions=sessions or [0] * size,
        indices=list(range(size)), data_sources=["set"] * size, rewards=list(rewards),
        scores={name: list(rewards) if name in ("strict", "flexible", "format") else [0.0] * size for name in SCORES},
        prompt_lengths=[4] * size, response_lengths=list(lengths), responses=[[1] * n for n in lengths],
        log_probs=[[0.0] * n for n in lengths],
    )  # fmt: skip


def test_metrics_by_hand():
    trained = rollouts([1, 0, 0], "aab", [3, 5, 4])
    trained.extra = rollouts([1, 0], "ab", [7, 9])
    trained.extra.scores["failure"] = [1.0, 0.0]
    metrics = rollout_metrics(trained)
    assert metrics["train/reward_mean"] == pytest.approx(1 / 3)
    assert metrics["train/response_length_mean"] == 4 and metrics["train/response_length_max"] == 5
    assert metrics["train/constant_groups"] == 0.5  # a: 1 0 1; b: 0 0
    assert metrics["reward/failures"] == 1  # an extra response that could not be scored counts too


def test_a_data_set_without_rules_of_ours_is_scored_by_its_reward():
    nothing = dict.fromkeys(("strict", "flexible", "format"), math.nan)
    assert [_score("strict", nothing, reward) for reward in (1.0, 0.0)] == [1.0, 0.0]
    assert _score("strict", {"strict": 0.0}, 0.7) == 0.0  # a rule of ours applies: whatever trains, Pass@1 is its score
    assert _score("strict", {}, 1.0) == 1.0 and _score("failure", {}, 1.0) == 0.0
    theirs = rollouts([1, 0, 0], "aab", [3, 5, 4])
    for name in ("flexible", "format"):
        theirs.scores[name] = [_score(name, nothing, 1.0)] * 3
    drawn = SimpleNamespace(temperature=1, top_p=1, top_k=-1)
    for metrics in (rollout_metrics(theirs), _metrics("test", theirs, drawn)):
        assert all(math.isfinite(value) for value in metrics.values())
        assert not [key for key in metrics if key.endswith(("flexible", "format"))]


def test_math_logs_the_lenient_score_and_other_data_sets_do_not():
    ours = rollouts([1, 0, 0], "aab", [3, 5, 4])
    ours.scores["lenient"] = [1.0, 1.0, 0.0]
    assert "train/lenient" not in rollout_metrics(ours)
    ours.data_sources = [MATH] * 3
    drawn = SimpleNamespace(temperature=1, top_p=1, top_k=-1)
    assert rollout_metrics(ours)["train/lenient"] == pytest.approx(2 / 3)
    assert _metrics("test", ours, drawn)["eval/test/lenient"] == pytest.approx(2 / 3)
    assert rollout_metrics(ours)["train/pass@1"] == pytest.approx(1 / 3)


def test_a_single_response_per_query_has_no_groups():
    assert "train/constant_groups" not in rollout_metrics(rollouts([1, 0], "ab", [1, 1]))


def test_what_dynamic_sampling_threw_away_is_paid_for():
    """Two responses trained (8 tokens), two thrown away with an extra one of theirs (10 + 10 + 5)."""
    trained = rollouts([1, 0], "aa", [3, 5])
    trained.filtered = rollouts([1, 1], "bb", [10, 10])
    trained.filtered.extra = rollouts([1], "b", [5])
    ledger = Ledger()
    entries = ledger.step(trained, {})
    assert entries["ledger/total_tokens_generated"] == 33 and entries["ledger/total_tokens_trained"] == 8
    assert entries["ledger/total_filtered_responses"] == 3 and entries["ledger/total_queries"] == 2
    assert ledger.budget_reached(generated_tokens=33, gradient_samples=None, hours=None) == "generated_tokens"
    assert ledger.budget_reached(generated_tokens=34, gradient_samples=None, hours=None) is None


def test_advantage_metrics_by_hand():
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1]])
    advantages = torch.tensor([[2.0], [0.0], [-1.0]]) * mask
    metrics = advantage_metrics(advantages, mask)
    assert metrics == {
        "train/advantage_mean": pytest.approx(1 / 3), "train/advantage_var": pytest.approx(7 / 3),
        "train/advantage_max_abs": 2.0, "train/zero_advantage": pytest.approx(1 / 3),
    }  # fmt: skip


def test_ledger_counts_extra_and_wasted_generation():
    ledger = Ledger()
    trained = rollouts([1, 0, 0], "aab", [3, 5, 4])
    trained.extra = rollouts([1, 0], "ab", [7, 9])
    first = ledger.step(trained, {"train/zero_advantage": 1 / 3, "timing_s/step": 36.0})
    assert {key: first[f"ledger/{key}"] for key in (
        "queries", "responses_generated", "tokens_generated", "responses_trained", "tokens_trained", "gradient_samples",
        "wasted_responses", "extra_responses", "total_hours")} == {
        "queries": 2, "responses_generated": 5, "tokens_generated": 28, "responses_trained": 3, "tokens_trained": 12,
        "gradient_samples": 2, "wasted_responses": 1, "extra_responses": 2, "total_hours": pytest.approx(0.01)}  # fmt: skip
    again = Ledger()
    again.load_state_dict(ledger.state_dict())
    second = again.step(trained, {"train/zero_advantage": 0.0, "timing_s/step": 36.0})
    assert second["ledger/total_queries"] == 4 and second["ledger/total_gradient_samples"] == 5


@pytest.mark.parametrize(
    "budget, reached", [({"generated_tokens": 28}, "generated_tokens"), ({"generated_tokens": 29}, None),
                        ({"gradient_samples": 3}, "gradient_samples"), ({"hours": 0.0101}, None), ({"hours": 0.01}, "hours"),
                        ({}, None)],
)  # fmt: skip
def test_budgets_end_with_the_step_that_reaches_them(budget, reached):
    ledger = Ledger()
    trained = rollouts([1, 0, 0], "aab", [9, 9, 10])
    ledger.step(trained, {"timing_s/step": 36.0})
    full = {"generated_tokens": None, "gradient_samples": None, "hours": None, **budget}
    assert ledger.budget_reached(**full) == reached


def test_shuffled_rewards_are_the_same_rewards_elsewhere():
    batch = rollouts(np.arange(64) / 64, [f"q{i}" for i in range(64)], [1] * 64)
    one, same, other = (shuffled_rewards(batch, seed, step) for seed, step in ((0, 1), (0, 1), (0, 2)))
    assert sorted(one.rewards) == sorted(batch.rewards) and one.rewards != batch.rewards
    assert one.rewards == same.rewards != other.rewards
    assert one.scores["strict"] == batch.scores["strict"]  # what is logged stays with its response


def test_padding_rows_move_nothing():
    """verl pads a batch that a failed rollout left short: such a row has reward 0 in a group of its own."""
    batch = rollouts([1, 1], "ab", [3, 3])
    padded = batch.aligned_with(["b_1_0", "padding", "a_0_0"])
    assert padded.rewards == [1, 0.0, 1] and padded.uids == ["b", "padding-1", "a"]


def test_changed_rewards_reach_what_verl_reads():
    """verl's own estimators take the rewards from the queue: a control that only changed ours would be none under rloo."""
    batch = rollouts([1, 0, 1], "abc", [2, 1, 3])
    with installed():
        fields = TensorDict({"rm_scores": nested([torch.zeros(n) for n in (2, 1, 3)])}, batch_size=3)
        keys = tq.kv_batch_put(keys=batch.keys, partition_id="train", fields=fields, tags=[{}] * 3)
        batch.with_rewards([0.5, 1.0, -2.0]).write_rewards(keys)
        written = tq.kv_batch_get(keys=batch.keys, partition_id="train", select_fields=["rm_scores"])["rm_scores"]
        assert [row.tolist() for row in written.unbind()] == [[0.0, 0.5], [1.0], [0.0, 0.0, -2.0]]


def test_a_history_remembers_what_was_thrown_away_and_no_padding():
    batch = rollouts([1, 0], "ab", [1, 1])
    short = batch.aligned_with([*batch.keys, "pad_0_0"])  # verl's row is made from row 0: question 0 of the set
    short.filtered = rollouts([0, 0], "cc", [1, 1])
    short.filtered.indices = [7, 7]
    history = RewardHistory(4)
    RayTrainerReplay._remember(SimpleNamespace(history=history, global_steps=1), short)
    assert history.windows([("set", 0), ("set", 1), ("set", 7)]) == [[1.0], [0.0], [0.0, 0.0]]
