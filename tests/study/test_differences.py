"""Differences of two configs: declared, derived, or neither."""

import dataclasses

import pytest

from Verl.design.declared import Factor
from Verl.design.differences import check_factors, differences, single_key, undeclared

DERIVED = {"actor.ppo_mini_batch_size": "data.train_batch_size"}
BATCH = Factor("batch", "batch", ("data.train_batch_size", "algorithm.replay"), question="Does it matter?", reference="a")
BASE = {"data.train_batch_size": 32, "actor.ppo_mini_batch_size": 32, "lr": 1e-6}


def test_a_derived_key_counts_as_its_source():
    found = differences(BASE, BASE | {"data.train_batch_size": 64, "actor.ppo_mini_batch_size": 64}, DERIVED)
    assert {one.key: one.source for one in found} == {
        "data.train_batch_size": None, "actor.ppo_mini_batch_size": "data.train_batch_size",
    }  # fmt: skip
    assert undeclared(found, BATCH) == []


def test_a_derived_key_that_moves_alone_is_undeclared():
    found = differences(BASE, BASE | {"actor.ppo_mini_batch_size": 16}, DERIVED)
    assert [one.key for one in undeclared(found, BATCH)] == ["actor.ppo_mini_batch_size"]


def test_a_key_may_follow_from_one_that_follows():
    """The critic's mini-batch from the actor's, and that from the batch: each difference has the last source that differs."""
    derived = {**DERIVED, "critic.ppo_mini_batch_size": "actor.ppo_mini_batch_size"}
    base = BASE | {"critic.ppo_mini_batch_size": 32}
    smaller = {"actor.ppo_mini_batch_size": 16, "critic.ppo_mini_batch_size": 16}
    alone = {one.key: one.source for one in differences(base, base | smaller, derived)}
    assert alone == {"actor.ppo_mini_batch_size": None, "critic.ppo_mini_batch_size": "actor.ppo_mini_batch_size"}
    both = {one.key: one.source for one in differences(base, base | smaller | {"data.train_batch_size": 16}, derived)}
    assert both["critic.ppo_mini_batch_size"] == "data.train_batch_size"


def test_a_confounder_is_undeclared_and_a_key_that_one_side_lacks_is_a_difference():
    found = differences(BASE, BASE | {"data.train_batch_size": 64, "lr": 1e-5, "extra": 1}, DERIVED)
    assert [one.key for one in undeclared(found, BATCH)] == ["extra", "lr"]


def test_declared_keys_take_what_lies_below_them_and_nothing_that_begins_alike():
    found = differences(BASE, BASE | {"algorithm.replay.decay": 0.9, "algorithm.replay_more": 1}, DERIVED)
    assert [one.key for one in undeclared(found, BATCH)] == ["algorithm.replay_more"]


def test_one_key_behind_a_difference_is_named(study):
    found = differences(BASE, BASE | {"data.train_batch_size": 64, "actor.ppo_mini_batch_size": 64}, DERIVED)
    assert single_key(study, found) == "data.train_batch_size"
    assert single_key(study, differences(BASE, BASE | {"lr": 1, "data.train_batch_size": 2}, DERIVED)) is None


@pytest.mark.parametrize(("change", "wrong"), [({}, 0), ({"lr": 1.0}, 1)])
def test_every_comparison_is_checked(study, change, wrong):
    """Two arms that differ in n; then in the learning rate as well."""

    class Flat:
        def __init__(self, arm):
            self.flat = {"actor_rollout_ref.rollout.n": study.arms[arm].rollouts, "lr": 1e-6}
            self.flat |= change if arm == "grpo_0032_8" else {}

    pair = study.pairs["smollm135m_gsm"]
    reduced = dataclasses.replace(study, factors={"rollouts": study.factors["rollouts"]})
    comparisons, problems = check_factors(reduced, lambda arm, pair: Flat(arm), [pair])
    assert comparisons == 1
    assert len(problems) == wrong
    assert all("differ in lr" in problem for problem in problems)
