"""Which groups are kept, how a batch is refilled, and what happens at the limit: with rewards written by hand."""

from types import SimpleNamespace

import pytest
import torch
import transfer_queue as tq
from omegaconf import OmegaConf
from tensordict import TensorDict
from tensordict.tensorclass import NonTensorStack
from transfer_queue import KVBatchMeta

from Verl.adapter.nested import nested, stacked
from Verl.cpu.local_queue import installed
from Verl.errors import RunStopped
from Verl.trainer.ppo.dynamic_sampling import DynamicSampler, different_questions
from Verl.trainer.ppo.ledger import Ledger, rollout_metrics
from Verl.trainer.ppo.rollouts import Rollouts


class Data:
    """Queries with the rewards of their responses, drawn one after the other; and the buffer that hands them out."""

    def __init__(self, *rewards: list[float], length: int = 3):
        self.rewards, self.length, self.place, self.waiting, self.asked = list(rewards), length, 0, [], []

    def draw(self, number: int) -> None:
        self.asked.append(number)
        for place in range(self.place, self.place + number):
            values = self.rewards[place]
            keys = [f"{1:08d}-{place:06d}_{session}_0" for session in range(len(values))]
            scores = [torch.tensor([0.0] * (self.length - 1) + [value]) for value in values]
            infos = [{"reward_extra_info": {"strict": value, "flexible": 1.0}} for value in values]
            ids = [torch.arange(self.length) for _ in values]
            fields = {
                "rm_scores": nested(scores), "responses": nested(ids), "rollout_log_probs": nested([x.float() for x in ids]),
                "extra_fields": stacked(infos), "index": stacked([place] * len(values)),
                "data_source": stacked(["s"] * len(values)),
            }  # fmt: skip
            tags = [{"prompt_len": 2, "response_len": self.length}] * len(values)
            tq.kv_batch_put(keys=keys, partition_id="train", fields=TensorDict(fields, batch_size=len(keys)), tags=tags)
            self.waiting += zip(keys, tags, strict=True)
        self.place += number

    def sample(self, global_steps, partition_id, batch_size):
        keys, tags = zip(*self.waiting)
        self.waiting = []
        return KVBatchMeta(partition_id=partition_id, keys=list(keys), tags=list(tags), extra_info={}), {}


def sampler(data: Data, n=2, limit=0, metric="reward", read=lambda fetched: fetched) -> DynamicSampler:
    config = OmegaConf.create({
        "algorithm": {"filter_groups": {"metric": metric, "max_num_gen_batches": limit}},
        "actor_rollout_ref": {"rollout": {"n": n}},
    })  # fmt: skip
    return DynamicSampler(data, config, data.draw, read, len(data.rewards))


def drawn(data: Data, size: int, **settings):
    """(places of the queries in the batch, what was thrown away, metrics, the sampler)"""
    one = sampler(data, **settings)
    one.begin_step()
    data.draw(size)
    batch, metrics = one.sample(1, "train", size)
    places = [int(key.split("_")[0].split("-")[1]) for key in batch.keys]
    return list(dict.fromkeys(places)), one.filtered, metrics, batch


def test_as_many_are_drawn_as_are_missing():
    with installed() as queue:
        data = Data([1, 1], [0, 1], [0, 0], [1, 0], [1, 1], [0, 1], [1, 0], [0, 1])
        kept, filtered, metrics, batch = drawn(data, 4)
        assert kept == [1, 3, 5, 6] and data.asked == [4, 2, 1]
        assert filtered.indices == [0, 0, 2, 2, 4, 4] and filtered.extra is None
        assert metrics == {"train/filtered_groups": 3 / 7, "train/filter_filled": 0.0, "train/drawn_batches": 7 / 4}
        # What was thrown away takes no memory any more; what was kept is there, in one batch.
        assert sorted(queue.kv_list("train")["train"]) == sorted(batch.keys) and len(batch) == 8
        assert Rollouts.fetch(batch).rewards == [0, 1, 1, 0, 0, 1, 1, 0]


def test_extra_responses_belong_to_their_group():
    """One trained and two extra ones: the group varies if any of the three does; what is thrown away keeps them apart."""
    with installed():
        kept, filtered, _, batch = drawn(Data([1, 1, 1], [1, 1, 0], [0, 0, 0], [0, 1, 0]), 2, n=1)
        assert kept == [1, 3] and len(batch) == 6
        assert (filtered.sessions, filtered.extra.sessions) == ([0, 0], [1, 2, 1, 2])


def test_a_limit_fills_the_batch_with_the_first_constant_groups():
    with installed():
        data = Data([1, 1], [0, 0], [1, 0], [0, 0], [1, 1], [0, 1], [1, 0])
        kept, filtered, metrics, _ = drawn(data, 3, limit=2)
        assert data.asked == [3, 2, 1] and kept == [0, 2, 5]  # 6 queries; one of those that do not vary fills it
        assert filtered.indices == [1, 1, 3, 3, 4, 4] and metrics["train/filter_filled"] == 1
        assert metrics["train/filtered_groups"] == 3 / 6 and metrics["train/drawn_batches"] == 2


def test_no_query_twice_in_a_step_and_the_data_ends():
    """Without a limit each question is drawn once; if none varies, the run ends with the reason."""
    with installed():
        kept, _, metrics, _ = drawn(Data([1, 1], [0, 0], [1, 0]), 2)
        assert kept == [0, 2] and metrics["train/filter_filled"] == 1
        with pytest.raises(RunStopped, match="filter_groups.metric=reward is the same for all responses to each of the 3"):
            drawn(Data([1, 1], [0, 0], [1, 1]), 2)
        kept, _, metrics, _ = drawn(Data(*[[1, 1]] * 9), 2, limit=3)  # a limit below the data set's size: unlucky, not hopeless
        assert kept == [0, 1] and metrics["train/filter_filled"] == 2


def test_the_metric_decides():
    """Rewards vary by a penalty, scores do not; and the other way round for the flexible score."""

    def penalised(fetched):
        return fetched.with_rewards([reward - session / 10 for reward, session in zip(fetched.rewards, fetched.sessions)])

    with installed():
        assert drawn(Data([1, 1], [0, 1]), 1, metric="reward", read=penalised)[0] == [0]
        assert drawn(Data([1, 1], [0, 1]), 1, metric="score", read=penalised)[0] == [1]
        assert drawn(Data([1, 1], [0, 1]), 1, metric="strict", read=penalised)[0] == [1]
        with pytest.raises(RunStopped, match="metric=flexible is the same"):
            drawn(Data([1, 1], [0, 1]), 1, metric="flexible")


def test_a_metric_that_the_data_does_not_have():
    with installed():
        data = Data([1, 1])
        one = sampler(data, metric="flexible", read=lambda fetched: fetched)
        data.draw(1)
        fetch = Rollouts.fetch(data.sample(1, "train", 1)[0])
        fetch.scores["flexible"] = [float("nan")] * 2
        one._read = lambda _: fetch
        data.place = 0
        data.draw(1)
        with pytest.raises(RunStopped, match="metric=flexible is not defined for this data set"):
            one.sample(1, "train", 1)


def test_evaluation_is_left_alone():
    def only_there(global_steps, partition_id, batch_size):
        return (global_steps, partition_id, batch_size), {}

    one = sampler(Data())
    one._buffer = SimpleNamespace(sample=only_there, trainer_mode="sync")
    assert one.sample(3, "val", 5) == ((3, "val", 5), {}) and one.trainer_mode == "sync"


def test_queries_that_a_step_has_drawn():
    one = sampler(Data())
    one.begin_step()

    def batch(*indices):
        return TensorDict({"index": NonTensorStack(*indices), "data_source": NonTensorStack(*["s"] * len(indices))},
                          batch_size=len(indices))  # fmt: skip

    assert one.is_new(batch(1)) and one.is_new(batch(2)) and not one.is_new(batch(1))
    one.begin_step()
    assert one.is_new(batch(1))
    table = {"data_source": ["a", "a", "b", "a"], "extra_info": [{"index": 0}, {"index": 1}, {"index": 0}, {"index": 0}]}
    assert different_questions(SimpleNamespace(dataframe=table)) == 3


def test_the_ledger_counts_what_was_thrown_away():
    with installed():
        _, filtered, _, batch = drawn(Data([1, 1], [0, 1], [0, 0], [1, 0]), 2)
        trained = Rollouts.fetch(batch)
        trained.filtered = filtered
        entries = Ledger().step(trained, {"train/zero_advantage": 0.0})
        counted = {key: entries[f"ledger/{key}"] for key in (
            "queries", "responses_generated", "tokens_generated", "responses_trained", "tokens_trained", "filtered_queries",
            "filtered_responses", "total_filtered_queries")}  # fmt: skip
        assert counted == {
            "queries": 4, "responses_generated": 8, "tokens_generated": 24, "responses_trained": 4, "tokens_trained": 12,
            "filtered_queries": 2, "filtered_responses": 4, "total_filtered_queries": 2}  # fmt: skip
        metrics = rollout_metrics(trained)
        assert metrics["train/constant_groups"] == 0.5  # of all four that were drawn
        assert metrics["train/pass@1"] == 0.5 and metrics["train/drawn_pass@1"] == 0.5


def test_a_checkpoint_of_before_has_no_such_counts():
    ledger = Ledger()
    ledger.load_state_dict({"totals": {"queries": 3.0}, "hours": 0.0, "last": {}})
    assert ledger.totals["filtered_queries"] == 0.0 and ledger.totals["queries"] == 3.0
