"""What a run keeps of its responses: all of them, with what is needed to draw one again, up to a size; and how an
evaluation says what its Pass@1 is."""

import io
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from Verl.reward.sources import CHAIN_SUM
from Verl.seeds import rollout_seed
from Verl.trainer.console import Console, TrainingProgress
from Verl.trainer.ppo.evaluation import final_metrics, set_metrics, source_words
from Verl.trainer.ppo.ledger import rollout_metrics
from Verl.trainer.ppo.rollouts import Rollouts
from Verl.trainer.run_log import RunLog
from Verl.wording import pass_at_1

SCORES = ("strict", "flexible", "format", "failure", "timeout")


def rollouts(strict: list[float], sessions: list[int], indices: list[int]) -> Rollouts:
    n = len(strict)
    return Rollouts(
        keys=[f"{i}_{s}_0" for i, s in zip(indices, sessions)],
        uids=[f"00000003-{i:06d}" for i in indices],
        sessions=sessions,
        indices=indices,
        data_sources=[CHAIN_SUM] * n,
        rewards=strict,
        scores={name: strict if name == "strict" else [0.0] * n for name in SCORES},
        prompt_lengths=[4] * n,
        response_lengths=[2] * n,
        responses=[[7, session] for session in sessions],
        log_probs=[[-0.5, -0.25]] * n,
    )


@pytest.fixture
def make_log(tmp_path):
    def make(**samples):
        log = RunLog("run", tmp_path, Console(io.StringIO()), {"enable": True, "max_gb": 1.0, **samples}, seed=5)
        log._decode = lambda ids: "+".join(map(str, ids))
        return log

    return make


def read(log, part, step):
    return pq.read_table(log.folder / part / f"step_{step:06d}.parquet").to_pylist()


def test_every_response_is_kept_extra_ones_too_with_what_draws_it_again(make_log):
    log = make_log()
    drawn = rollouts([1.0, 0.0], sessions=[0, 0], indices=[17, 4])
    drawn.extra = rollouts([0.0, 1.0], sessions=[1, 1], indices=[17, 4])
    log.samples(drawn, step=3)
    rows = read(log, "samples", 3)
    assert [(r["index"], r["rollout"], r["trained"], r["reward"]) for r in rows] == [
        (17, 0, True, 1.0), (4, 0, True, 0.0), (17, 1, False, 0.0), (4, 1, False, 1.0),
    ]  # fmt: skip
    assert rows[2]["text"] == "7+1" and rows[2]["tokens"] == [7, 1] and rows[2]["log_prob"] == -0.75
    one = rows[3]
    place = (one["seed"], one["step"], one["data_source"], one["index"], one["rollout"])
    assert rollout_seed(*place, validate=False) == rollout_seed(5, 3, CHAIN_SUM, 4, 1, validate=False)


def test_an_evaluation_keeps_what_was_said_set_by_set(make_log):
    log = make_log()
    log.evaluation("train", 3, rollouts([1.0], [0], [17]))
    log.evaluation("test", 3, rollouts([0.0, 1.0], [0, 1], [4, 4]))
    rows = read(log, "evaluations", 3)
    assert [(r["split"], r["index"], r["sample"], r["strict"], r["text"]) for r in rows] == [
        ("train", 17, 0, 1.0, "7+0"), ("test", 4, 0, 0.0, "7+0"), ("test", 4, 1, 1.0, "7+1"),
    ]  # fmt: skip


def test_further_samples_are_appended_and_a_repeated_evaluation_is_not_there_twice(make_log):
    log = make_log()
    for _ in range(2):  # the second as after a kill in between
        log.evaluation("train", 3, rollouts([1.0], [0], [17]))
        log.evaluation("test", 3, rollouts([0.0, 1.0], [0, 0], [4, 9]))
        log.evaluation("test", 3, rollouts([1.0, 0.0, 1.0, 1.0], [1, 2, 1, 2], [4, 4, 9, 9]))
    rows = [(r["split"], r["index"], r["sample"], r["strict"]) for r in read(log, "evaluations", 3)]
    assert rows == [("train", 17, 0, 1.0), ("test", 4, 0, 0.0), ("test", 9, 0, 1.0), ("test", 4, 1, 1.0), ("test", 4, 2, 0.0),
                    ("test", 9, 1, 1.0), ("test", 9, 2, 1.0)]  # fmt: skip


def test_switched_off_only_scores_are_kept(make_log):
    log = make_log(enable=False)
    log.samples(rollouts([1.0], [0], [17]), 3)
    log.evaluation("test", 3, rollouts([1.0], [0], [17]))
    assert not (log.folder / "samples").exists()
    (row,) = read(log, "evaluations", 3)
    assert row["strict"] == 1.0 and "text" not in row


def test_size_cap_ends_the_texts_once_said_and_not_the_scores(make_log):
    log = make_log(max_gb=4e-6)  # 4,000 bytes: the first file fits, the second crosses it
    for step in range(4):
        log.samples(rollouts([1.0], [0], [17]), step)
    kept = sorted(path.name for path in (log.folder / "samples").iterdir())
    assert 0 < len(kept) < 4 and kept == [f"step_{step:06d}.parquet" for step in range(len(kept))]
    log.evaluation("test", 9, rollouts([1.0], [0], [17]))
    assert "text" not in read(log, "evaluations", 9)[0]
    assert log.console.terminal.getvalue().count("samples.max_gb=4e-06 is reached") == 1
    again = make_log(max_gb=4e-6)  # a resumed run counts what is there
    again.samples(rollouts([1.0], [0], [17]), 9)
    assert len(list((log.folder / "samples").iterdir())) == len(kept)


def test_cap_reached_between_two_sets_of_one_evaluation(make_log):
    log = make_log()
    log.evaluation("train", 3, rollouts([1.0], [0], [17]))
    log._samples["max_gb"] = 0.0
    log.evaluation("test", 3, rollouts([1.0], [0], [4]))
    assert [row["text"] for row in read(log, "evaluations", 3)] == ["7+0", None]


@pytest.mark.parametrize(
    ("drawn", "label"),
    [
        ((1, 1.0), "Pass@1, one sample at temperature 1.0"),
        ((1, 1), "Pass@1, one sample at temperature 1.0"),
        ((8, 0.6, 0.95, 20), "Pass@1, the mean of 8 samples at temperature 0.6, top_p 0.95, top_k 20"),
        ((1, 0.0), "Pass@1, greedy (temperature 0)"),
    ],
)
def test_label_says_how_the_answers_were_drawn(drawn, label):
    assert pass_at_1(*drawn) == label


def test_metrics_of_several_samples_and_the_line_that_shows_them():
    drawn = SimpleNamespace(temperature=0.6, top_p=1.0, top_k=-1)
    # question 17: right, wrong; question 4: wrong twice
    metrics = set_metrics("test", rollouts([1.0, 0.0, 0.0, 0.0], [0, 1, 0, 1], [17, 17, 4, 4]), drawn)
    assert metrics["eval/test/pass@1"] == 0.25 and metrics["eval/test/pass@2"] == 0.5
    assert (metrics["eval/test/samples"], metrics["eval/test/temperature"]) == (2.0, 0.6)
    # rewards of a user's own, which are neither right nor wrong
    own = set_metrics("test", rollouts([-1.0, 0.5, 3.0, 2.5], [0, 1, 0, 1], [17, 17, 4, 4]), drawn)
    assert own["eval/test/pass@1"] == 1.25 and "eval/test/pass@2" not in own
    out = io.StringIO()
    TrainingProgress(Console(out), total_steps=5).evaluation(3, metrics)
    assert out.getvalue() == "  step 3: Pass@1, the mean of 2 samples at temperature 0.6: test 0.250 (2 questions)\n"


def test_metrics_of_the_final_samples():
    # question 17: right, wrong; question 4: wrong twice; one answer could not be scored
    drawn = rollouts([1.0, 0.0, 0.0, 0.0], [0, 1, 0, 1], [17, 17, 4, 4])
    drawn.scores["failure"] = [0.0, 0.0, 1.0, 0.0]
    expected = {"eval/test/avg@2": 0.25, "eval/test/avg@2/failures": 1.0, "eval/test/pass@2": 0.5}
    assert final_metrics("test", drawn) == expected
    drawn.data_sources = ["a", "a", "b", "b"]
    found = final_metrics("test", drawn)
    assert {key: found[key] for key in expected} == expected
    assert (found["eval/test/a/avg@2"], found["eval/test/b/avg@2"], found["eval/test/a/pass@2"]) == (0.5, 0.0, 1.0)


def test_several_data_sources_are_measured_apart_and_together():
    drawn = SimpleNamespace(temperature=1.0, top_p=1.0, top_k=-1)
    both = rollouts(
        [1.0, 0.0, 1.0, 1.0], [0, 0, 0, 0], [3, 4, 3, 5]
    )  # question 3 of one set is not question 3 of the other
    both.uids = [f"00000003-{place:06d}" for place in range(4)]
    both.data_sources = ["openai/gsm8k", "openai/gsm8k", "my set", "my set"]
    metrics = set_metrics("test", both, drawn)
    assert metrics["eval/test/pass@1"] == 0.75 and metrics["eval/test/questions"] == 4
    assert metrics["eval/test/openai-gsm8k/pass@1"] == 0.5 and metrics["eval/test/openai-gsm8k/questions"] == 2
    other = source_words(both.data_sources)["my set"]
    assert metrics[f"eval/test/{other}/pass@1"] == 1.0
    alone = both.take([0, 1])
    assert not [name for name in set_metrics("test", alone, drawn) if name.count("/") > 2]
    assert len(set(source_words(["a/b", "a-b", "a b"]).values())) == 3


def test_the_parts_of_a_reward_are_kept_per_response_and_averaged_over_the_trained_ones(make_log):
    log = make_log()
    drawn = rollouts([1.0, 0.0], sessions=[0, 0], indices=[17, 4])
    drawn.reward_parts = {"steps": [3.0, None], "why": [None, "no box"]}
    drawn.extra = rollouts([0.0], sessions=[1], indices=[17])
    drawn.extra.reward_parts = {"other": [9.0]}
    log.samples(drawn, step=3)
    rows = read(log, "samples", 3)
    assert [row["reward/steps"] for row in rows] == [3.0, None, None]
    assert [row["reward_text/why"] for row in rows] == [None, "no box", None]
    assert [row["reward/other"] for row in rows] == [None, None, 9.0]
    assert rollout_metrics(drawn)["reward/steps"] == 3.0 and "reward/other" not in rollout_metrics(drawn)
    taken = drawn.take([1]).joined_with(drawn.extra)
    assert taken.reward_parts == {"other": [None, 9.0], "steps": [None, None], "why": ["no box", None]}
    log.evaluation("test", 3, drawn)
    log.evaluation("validation", 3, drawn.extra)  # one file, other parts
    assert [row["reward/steps"] for row in read(log, "evaluations", 3)] == [3.0, None, None]
    val_kwargs = SimpleNamespace(temperature=1.0, top_p=1.0, top_k=-1)
    assert set_metrics("test", drawn, val_kwargs)["eval/test/reward/steps"] == 3.0
