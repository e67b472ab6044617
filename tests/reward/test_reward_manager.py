"""The reward manager as verl uses it: config in, one sample at a time, a reward and the same extra keys out."""

import asyncio
import logging
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from verl import DataProto
from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls
from verl.trainer.ppo.reward import load_reward_manager

from Verl.errors import UserError
from Verl.reward.guard import MathVerifyGuard
from Verl.reward.manager import EXTRA_KEYS, BanditRewardManager, fair_coin
from Verl.reward.sources import CHAIN_SUM, GSM8K, MATH

EOS, PAD = 1, 0
HANGS = r"\boxed{9^{9^{9^{9}}}}"


class Characters:
    """A tokenizer with one token per character; 0 and 1 are special."""

    def decode(self, ids: torch.Tensor, skip_special_tokens: bool = False) -> str:
        return "".join(chr(i) if i > 1 else "" if skip_special_tokens else "<special>" for i in ids.tolist())


def sample(text: str, truth: str = "18", source: str = GSM8K, padding: str = "#### 99", **fields: Any) -> DataProto:
    """One response as verl hands it over: after the end mark comes padding, which here would be another answer."""
    prompt, response = [ord("q")] * 3, [*map(ord, text), EOS]
    responses = torch.tensor([response + list(map(ord, padding))])
    mask = torch.tensor([[1] * (len(prompt) + len(response)) + [0] * len(padding)])
    fields = {"data_source": source, "reward_model": {"style": "rule", "ground_truth": truth}, **fields}
    columns = {}
    for name, value in fields.items():
        columns[name] = np.empty(1, dtype=object)
        columns[name][0] = value
    return DataProto.from_dict({"responses": responses, "attention_mask": mask}, columns)


def config(seed: int | None = 7, **reward: Any) -> Any:
    defaults = {
        "reward_manager": {"source": "register", "name": "bandit_rft"},
        "custom_reward_function": {"path": None, "name": "compute_score"},
    }
    return OmegaConf.create({"seed": seed, "reward": {**defaults, **reward}})


def run(manager: BanditRewardManager, *samples: DataProto) -> list[dict]:
    async def all_of_them() -> list[dict]:
        return await asyncio.gather(*(manager.run_single(data) for data in samples))

    return asyncio.run(all_of_them())


def manager(guard: MathVerifyGuard | None = None, **settings: Any) -> BanditRewardManager:
    return BanditRewardManager(config(**settings), Characters(), guard=guard)


def extra(
    score: float, strict: float, flexible: float, form: float, failure: float = 0.0, timeout: float = 0.0
) -> dict:
    """What stands beside a reward; on GSM8K and sums the lenient score is the strict one."""
    return dict(zip(EXTRA_KEYS, (score, strict, flexible, form, failure, timeout, strict), strict=True))


@pytest.fixture
def with_function(tmp_path: Path):
    """A manager made by verl's own loader, with a user's function from a file."""

    def make(body: str, keyword: str = "def", **settings: Any) -> BanditRewardManager:
        path = tmp_path / f"reward_{time.monotonic_ns()}.py"
        arguments = "data_source, solution_str, ground_truth, extra_info=None, bonus=0.0"
        path.write_text(f"import asyncio, glob, time\n{keyword} mine({arguments}):\n    {body}\n")
        function = {"path": str(path), "name": "mine", "reward_kwargs": {"bonus": 0.5}}
        return load_reward_manager(config(custom_reward_function=function, **settings), Characters())

    return make


def test_verl_finds_it_by_name() -> None:
    assert get_reward_manager_cls("bandit_rft") is BanditRewardManager
    made = load_reward_manager(config(), Characters(), reward_router_address=None, reward_model_tokenizer=None)
    assert isinstance(made, BanditRewardManager)
    (result,) = run(made, sample("#### 18"))  # verl passes its default scorer: ours is used
    assert result == {"reward_score": 1.0, "reward_extra_info": extra(1, 1, 1, 1)}


def test_padding_and_special_tokens_are_not_read() -> None:
    (result,) = run(manager(), sample("#### 18", padding=" #### 99"))
    assert result["reward_score"] == 1.0
    (result,) = run(
        manager(), sample("#9", "9", CHAIN_SUM, padding="#8")
    )  # an end mark read as text would break strict
    assert result["reward_score"] == 1.0


@pytest.mark.parametrize(("rule", "rewards"), [("strict", (1, 0, 0)), ("flexible", (1, 1, 0)), ("format", (1, 0, 1))])
def test_rule_chooses_what_trains_and_all_scores_are_kept(rule: str, rewards: tuple) -> None:
    results = run(manager(rule=rule), sample("#### 18"), sample("it is 18"), sample("#### 5"))
    assert [result["reward_score"] for result in results] == list(rewards)
    scores = [(1, 1, 1), (0, 1, 0), (0, 0, 1)]
    assert [result["reward_extra_info"] for result in results] == [
        extra(reward, *three) for reward, three in zip(rewards, scores, strict=True)
    ]
    assert all(type(value) is float for result in results for value in result["reward_extra_info"].values())


def test_of_several_outputs_the_last_counts() -> None:
    both = DataProto.concat([sample("#### 17"), sample("#### 18")])
    assert run(manager(), both)[0]["reward_score"] == 1.0


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"rule": "strikt"}, "reward.rule=strikt"), ({"rule": "random", "seed": None}, "seed"), ({"rule": None}, "rule")],
)
def test_bad_settings_are_refused(settings: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        manager(**settings)


def test_random_beside_a_function_is_refused(with_function) -> None:
    with pytest.raises(UserError, match="exclude each other"):
        with_function("return 1.0", rule="random")


def test_hanging_answer_costs_its_own_reward() -> None:
    guard = MathVerifyGuard(cpu_seconds=0.5)
    answers = [r"\boxed{2/4}", HANGS, r"\boxed{0.50}", r"\boxed{3}"]
    results = run(manager(guard, rule="flexible"), *(sample(text, r"\frac12", MATH) for text in answers))
    guard.close()
    assert [result["reward_score"] for result in results] == [1.0, 0.0, 1.0, 0.0]
    assert [result["reward_extra_info"]["timeout"] for result in results] == [0.0, 1.0, 0.0, 0.0]
    assert [result["reward_extra_info"]["failure"] for result in results] == [0.0] * 4


def test_failing_math_verify_is_counted_and_strict_still_trains() -> None:
    guard = MathVerifyGuard()
    guard.close()
    right, wrong = run(manager(guard), sample(r"\boxed{2}", "2", MATH), sample(r"\boxed{x}", "2", MATH))
    assert right["reward_extra_info"] == extra(1, 1, 1, 1)
    wrong["reward_extra_info"].pop("error", None)
    assert wrong["reward_extra_info"] == extra(0, 0, 0, 1, failure=1)


def test_unknown_data_source_and_bad_truth_are_counted_and_logged_once(caplog) -> None:
    samples = [sample("#### 18", source="gsm8k")] * 3 + [sample("#### 18", truth="many")] * 2 + [sample("#### 18")]
    results = run(manager(), *samples)
    assert [result["reward_extra_info"]["failure"] for result in results] == [1.0] * 5 + [0.0]
    assert [result["reward_score"] for result in results] == [0.0] * 5 + [1.0]
    logged = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(logged) == 2
    assert any("'gsm8k'" in message for message in logged) and any("'many'" in message for message in logged)


@pytest.mark.parametrize(
    ("body", "keyword", "reward", "parts"),
    [
        ("return 0.25 + bonus", "def", 0.75, {}),
        ("return 0.25 + bonus", "async def", 0.75, {}),
        ("return {'score': 2, 'length': len(solution_str), 'strict': 9}", "def", 2.0, {"length": 7.0, "strict": 9.0}),
        ("return True", "def", 1.0, {}),
        ("return float(extra_info['index'] == 3 and 'num_turns' in extra_info)", "def", 1.0, {}),
    ],
)
def test_custom_function_trains(with_function, body: str, keyword: str, reward: float, parts: dict) -> None:
    information = {"index": 3}
    (result,) = run(with_function(body, keyword), sample("#### 17", extra_info=information))
    assert result["reward_score"] == reward
    assert result["reward_extra_info"] == {**extra(reward, 0, 0, 1), **({"parts": parts} if parts else {})}
    assert information == {"index": 3}  # the row is left as it was


@pytest.mark.parametrize(
    "body",
    [
        "raise RuntimeError('no ' + ground_truth) if '17' in solution_str else None\n    return 1.0",
        "return float('nan') if '17' in solution_str else 1.0",
        "return None if '17' in solution_str else 1.0",
        "return {'points': 1} if '17' in solution_str else {'score': 1}",
    ],
)
@pytest.mark.parametrize("keyword", ["def", "async def"])
def test_custom_function_that_fails_is_counted_and_logged_once(with_function, body, keyword, caplog) -> None:
    if body.startswith("raise"):
        body = "if '17' in solution_str: raise RuntimeError('no ' + ground_truth)\n    return 1.0"
    bad, worse, good = run(with_function(body, keyword), sample("#### 17"), sample("#### 17"), sample("#### 18"))
    errors = [result["reward_extra_info"].pop("error") for result in (bad, worse)]
    assert errors[0] == errors[1] and "Error" in errors[0]
    assert bad == worse == {"reward_score": 0.0, "reward_extra_info": extra(0, 0, 0, 1, failure=1)}
    assert good == {"reward_score": 1.0, "reward_extra_info": extra(1, 1, 1, 1)}
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


@pytest.mark.parametrize("keyword", ["def", "async def"])
def test_custom_function_that_takes_too_long_is_counted_and_the_others_are_scored(with_function, keyword) -> None:
    wait = "await asyncio.sleep(60)" if keyword == "async def" else "time.sleep(60)"
    body = f"if '17' in solution_str: {wait}\n    return 1.0"
    slow, good = run(with_function(body, keyword, timeout_seconds=1.0), sample("#### 17"), sample("#### 18"))
    assert "took longer than 1 s" in slow["reward_extra_info"].pop("error")
    assert slow == {"reward_score": 0.0, "reward_extra_info": extra(0, 0, 0, 1, timeout=1)}
    assert good == {"reward_score": 1.0, "reward_extra_info": extra(1, 1, 1, 1)}


def test_custom_function_on_a_data_set_of_its_own(with_function) -> None:
    (result,) = run(with_function("return 1.0"), sample("yes", "yes", "my/data"))
    info = result["reward_extra_info"]
    assert tuple(info) == EXTRA_KEYS and info["score"] == 1.0 and info["failure"] == 0.0
    assert all(math.isnan(info[name]) for name in ("strict", "flexible", "format"))  # not a zero: no rule applies


def test_slow_function_does_not_hold_up_the_loop(with_function, tmp_path) -> None:
    body = f"""open({str(tmp_path)!r} + '/call_' + solution_str[-1], 'w').close()
    for _ in range(600):
        if len(glob.glob({str(tmp_path)!r} + '/call_*')) == 2:
            return 1.0
        time.sleep(0.05)
    raise RuntimeError('alone')"""  # neither returns before both are called
    results = run(with_function(body), sample("#### 18"), sample("#### 19"))
    assert [result["reward_score"] for result in results] == [1.0, 1.0]


def test_hanging_answer_does_not_hold_up_the_loop() -> None:
    guard = MathVerifyGuard(cpu_seconds=1.0)
    scorer = manager(guard)
    order: list[str] = []

    async def score(data: DataProto, name: str) -> None:
        await scorer.run_single(data)
        order.append(name)

    async def both() -> None:
        await asyncio.gather(score(sample(HANGS, "2", MATH), "hanging"), score(sample("#### 18"), "plain"))

    asyncio.run(both())
    guard.close()
    assert order == ["plain", "hanging"]


def _place(text: str, step: int, index: int, rollout: int) -> DataProto:
    return sample(text, extra_info={"index": index}, global_steps=step, session_id=rollout)


def test_random_rule_depends_on_the_place_and_nothing_else() -> None:
    places = [(step, index, rollout) for step in (1, 2) for index in range(8) for rollout in range(4)]
    right = run(manager(rule="random"), *(_place("#### 18", *place) for place in places))
    wrong = run(manager(rule="random"), *(_place("no", *place) for place in reversed(places)))
    rewards = [result["reward_score"] for result in right]
    assert rewards == [result["reward_score"] for result in reversed(wrong)]
    assert rewards == [fair_coin(7, step, GSM8K, index, rollout) for step, index, rollout in places]
    assert set(rewards) == {0.0, 1.0}
    assert right[0]["reward_extra_info"] == extra(rewards[0], 1, 1, 1)  # what was learnt still shows


def test_coin_is_fair_and_each_part_of_the_place_matters() -> None:
    n = 20_000
    for vary in range(4):
        coins = [
            fair_coin(
                *(7 if part != vary else k for part in range(2)), GSM8K, *(7 if part != vary else k for part in (2, 3))
            )
            for k in range(n)
        ]
        assert abs(sum(coins) / n - 0.5) < 0.0177  # five standard errors
        same = sum(a == b for a, b in zip(coins, coins[1:], strict=False))
        assert abs(same / (n - 1) - 0.5) < 0.0177  # neighbours are independent


@pytest.mark.parametrize("missing", ["global_steps", "session_id", "index"])
def test_random_rule_without_a_place_is_a_failure(missing: str, caplog) -> None:
    fields = {"global_steps": 1, "session_id": 0, "index": 5}
    del fields[missing]
    (result,) = run(manager(rule="random"), sample("#### 18", **fields))
    assert missing in result["reward_extra_info"].pop("error")
    assert result["reward_extra_info"] == extra(0, 1, 1, 1, failure=1)
    assert missing in caplog.text
