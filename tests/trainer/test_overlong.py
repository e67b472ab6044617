"""The overlong penalty is verl's, to the bit."""

import asyncio
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from verl.experimental.reward_loop.reward_manager.dapo import DAPORewardManager

from tests.trainer.test_ledger_and_controls import rollouts
from Verl.trainer.ppo.overlong import Overlong


def config(longest=20, **cfg):
    kwargs = {"overlong_buffer_cfg": {"enable": True, "log": False, **cfg}}
    if longest:
        kwargs["max_resp_len"] = longest
    return OmegaConf.create({"reward": {"reward_kwargs": kwargs}, "data": {"max_response_length": 16}})


def test_by_hand():
    """20 tokens, a buffer of 8: nothing up to 12, then an eighth of the factor per token."""
    soft = Overlong.of(config(len=8, penalty_factor=2.0))
    assert soft.penalties([1, 12, 13, 16, 20, 24]).tolist() == [0, 0, -0.25, -1.0, -2.0, -3.0]
    assert soft.metrics(soft.penalised(rollouts([1, 0], "ab", [12, 16]))) == {}


def test_the_limit_is_the_longest_response_where_none_is_given():
    assert Overlong.of(config(longest=None, len=4, penalty_factor=1.0)).limit == 16
    assert Overlong.of(config(enable=False)) is None and Overlong.of(OmegaConf.create({"reward": {}})) is None


@pytest.mark.parametrize("buffer, factor", [(8, 1.0), (7, 0.3), (20, 1.7)])
def test_the_rewards_of_verl_s_own_manager(buffer, factor):
    """verl's reward manager with the same keys and a scorer of 0.1 or 1, against ours."""
    cfg = config(len=buffer, penalty_factor=factor, log=True)
    lengths = list(range(1, 21))
    scores = [0.1 if length % 3 else 1.0 for length in lengths]
    tokenizer = SimpleNamespace(decode=lambda ids, skip_special_tokens: str(len(ids)))
    verls = DAPORewardManager(cfg, tokenizer, lambda solution_str, **_: scores[int(solution_str) - 1])
    fields = {"data_source": "x", "reward_model": {"ground_truth": ""}}
    expected = []

    async def score():
        verls.loop = asyncio.get_running_loop()
        for length in lengths:
            ids = torch.ones(length, dtype=torch.long)
            sample = SimpleNamespace(batch={"responses": ids, "attention_mask": ids}, non_tensor_batch=fields)
            expected.append(await verls.run_single([sample]))

    asyncio.run(score())
    ours = Overlong.of(cfg).penalised(rollouts(scores, [str(length) for length in lengths], lengths))
    as_written = [float(torch.tensor(one["reward_score"], dtype=torch.float32)) for one in expected]
    assert ours.rewards == as_written
    assert ours.penalties == [float(one["reward_extra_info"]["overlong_reward"]) for one in expected]
    assert ours.scores["strict"] == scores  # what is measured does not change
    long = sum(one["reward_extra_info"]["overlong"] for one in expected) / len(lengths)
    assert Overlong.of(cfg).metrics(ours) == {
        "train/overlong": pytest.approx(float(long)), "train/overlong_penalty_mean": pytest.approx(sum(ours.penalties) / 20)
    }  # fmt: skip
