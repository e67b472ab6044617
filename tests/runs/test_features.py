"""docs/features.md over whole runs of the mini pair: what was declared trains, on both rollout paths, after a kill too."""

import json
import signal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.runs.harness import STEPS
from Verl.data.prompt_length import chat_template
from Verl.trainer import main_export
from Verl.trainer.best import VALIDATION

pytestmark = pytest.mark.slow

SHORT = ["trainer.total_training_steps=3", "trainer.test_freq=-1", "evaluation.val_freq=3", "trainer.save_freq=3"]
N2 = "actor_rollout_ref.rollout.n=2"
FILTER = "algorithm.filter_groups.enable=true"
OVERLONG = "reward.reward_kwargs.overlong_buffer_cfg"
SOFT = [f"{OVERLONG}.enable=true", f"{OVERLONG}.len=6", f"{OVERLONG}.penalty_factor=0.5"]
AGENT_LOOP = [
    "reward.num_workers=1",
    "actor_rollout_ref.rollout.agent.agent_loop_manager_class=Verl.adapter.agent_loop.SeededAgentLoopManager",
]


FEATURES = [*SHORT, N2, FILTER, *SOFT, "algorithm.mask_truncated=true", "trainer.test_freq=3", "evaluation.final_samples=3"]
HALF = [*SHORT, N2, "actor_rollout_ref.rollout.dtype=bfloat16"]
CORRECTED = [f"algorithm.rollout_correction.{setting}" for setting in (
    "rollout_is=token", "rollout_rs=token_k1", "rollout_rs_threshold='0.9995_1.0005'"
)]  # fmt: skip
BUDGET = 1500  # tokens: 32 responses of 12 at most are trained a step
CLIPPED = [*SHORT, N2, "actor_rollout_ref.actor.ppo_mini_batch_size=4"]
RUNS = {
    "plain": [*SHORT, N2],  # none of the features
    "features": FEATURES,
    "masked": [N2, "algorithm.mask_truncated=true", "data.train_batch_size=2", "data.max_response_length=5",
               "trainer.test_freq=-1", "evaluation.val_freq=10"],
    "budget": [N2, FILTER, "trainer.test_freq=-1", "evaluation.val_freq=10", f"budget.generated_tokens={BUDGET}"],
    "half": HALF,
    "half-corrected": [*HALF, *CORRECTED],
    "clip-0.2": [*CLIPPED, "actor_rollout_ref.actor.clip_ratio=0.2"],
    "clip-0.02": [*CLIPPED, "actor_rollout_ref.actor.clip_ratio=0.02"],
}  # fmt: skip


TEMPLATE = "{% for one in messages %}{{ one.content }}{% endfor %}"
PARTS = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": 1 - len(solution_str) / 16, "length": len(solution_str), "first": solution_str[:1]}
"""


def own_reward(mini) -> list[str]:
    """A reward in parts that is Pass@1 on validation too, where the data source is none that a rule of ours scores: the strict
    score of a random model is 0, and of steps that are all alike any choice is the best."""
    (mini.folder / "parts.py").write_text(PARTS)
    table, path = pq.read_table(mini.folder / "data/validation.parquet"), mini.folder / "own_source.parquet"
    place, own = table.column_names.index("data_source"), pa.array(["mine/sums"] * len(table))
    pq.write_table(table.set_column(place, "data_source", own), path)
    return [f"data.val_files={path}", f"reward.custom_reward_function.path={mini.folder}/parts.py"]


def asked(mini) -> list[str]:
    """A run with a benchmark, a reward in parts, a chat template of its own, and the best checkpoint alone."""
    (mini.folder / "own.jinja").write_text(TEMPLATE)
    return [
        *SHORT, N2, *own_reward(mini), "trainer.test_freq=3", "evaluation.val_freq=1", "trainer.save_freq=-1",
        "trainer.keep_best=true", "trainer.max_actor_ckpt_to_keep=1", f"data.chat_template={mini.folder}/own.jinja",
        f"data.benchmarks.hard={mini.folder}/own_source.parquet",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def runs(mini):
    """All of RUNS, by name, and "asked"."""
    found = mini.together("features", {name: ("grpo", overrides) for name, overrides in {**RUNS, "asked": asked(mini)}.items()})
    return {name: finished(result) for name, result in found.items()}


def same(a, b) -> bool:
    wa, wb = a.weights(3), b.weights(3)
    return all(torch.equal(wa[name], wb[name]) for name in wa)


def finished(result):
    assert result.status == 0, result.output
    return result


def test_all_of_them_on_both_rollout_paths(mini, runs):
    """Groups filtered by rewards with the penalty, cut-off responses masked: batched and with verl's own agent loop."""
    batched = runs["features"]
    looped = finished(mini.run("grpo", "features-loop", *FEATURES, *AGENT_LOOP))
    assert looped.metrics() == batched.metrics() and looped.samples().equals(batched.samples())
    assert same(looped, batched) and not same(batched, runs["plain"])
    assert looped.evaluation(3).equals(batched.evaluation(3)) and set(batched.evaluation(3)["sample"]) == {0, 1, 2}
    samples = batched.samples()
    for record in batched.records[1:]:
        step = samples[samples.step == record["step"]]
        trained, filtered = step[step.trained], step[step.filtered]
        assert len(trained) == 32 and not (step.trained & step.filtered).any() and len(step) == len(trained) + len(filtered)
        for part, varies in ((trained, True), (filtered, False)):
            assert all((len(set(rewards)) > 1) == varies for _, rewards in part.groupby("index").reward)
        assert record["ledger/filtered_responses"] == len(filtered) > 0
        assert record["ledger/responses_generated"] == len(step) and record["ledger/queries"] == len(step) // 2
        assert record["ledger/masked_responses"] == trained.truncated.sum() > 0
        # The reward of the mini pair is 0 or 1; 12 tokens at most, so that a buffer of 6 begins at 6.
        penalty = (-(step.response_length - 6) / 6 * 0.5).clip(upper=0)
        assert step.overlong_penalty.to_numpy() == pytest.approx(penalty.to_numpy())
        assert set((step.reward - penalty).round(5)) <= {0.0, 1.0}
        assert record["train/overlong"] == pytest.approx((trained.overlong_penalty < 0).mean())
    # An evaluation is not penalised.
    assert set(batched.evaluation(3).reward) <= {0.0, 1.0}


def test_a_step_of_nothing_but_masked_responses_moves_no_gradient(runs):
    """Four responses a step, most of them cut off at five tokens: in some steps all, and then loss and gradient are 0."""
    result = runs["masked"]
    empty = [record for record in result.records[1:] if record["train/truncated"] == 1]
    some = [record for record in result.records[1:] if 0 < record["train/truncated"] < 1]
    assert len(empty) > 0 and len(some) > 0
    for record in empty:
        assert record["actor/grad_norm"] == record["actor/pg_loss"] == record["actor/kl_loss"] == 0
        assert record["ledger/masked_responses"] == record["ledger/wasted_responses"] == 4
        assert record["actor/entropy"] > 0 and record["training/rollout_probs_diff_max"] < 1e-5  # of all tokens
    assert any(record["actor/grad_norm"] > 0 for record in some)


def test_a_budget_is_spent_on_what_dynamic_sampling_throws_away_too(runs):
    """So that arms with and without it are compared at equal cost: the run ends before it has trained on so many tokens."""
    before, last = runs["budget"].records[-2:]
    assert before["ledger/total_tokens_generated"] < BUDGET <= last["ledger/total_tokens_generated"]
    assert last["ledger/total_filtered_responses"] > 0 and last["ledger/total_tokens_trained"] < BUDGET
    assert last["step"] < STEPS and "eval/validation/pass@1" in last


@pytest.mark.long
def test_a_resumed_run_has_drawn_what_the_uninterrupted_one_drew(mini):
    """Dynamic sampling with replay: data position, and the history of queries that were thrown away, after kill -9."""
    overrides = ["algorithm.adv_estimator=asyttgrpo", "data.window_size=4", N2, FILTER]
    whole = finished(mini.hosted("replay", "refill-whole", *overrides))
    assert mini.kill_after("replay", "refill-cut", 6, *overrides) == -signal.SIGKILL
    assert not mini.wait_until_clean(), "kill -9 left Ray processes behind"
    resumed = finished(mini.hosted("replay", "refill-cut", *overrides))
    assert [record["step"] for record in resumed.records] == list(range(STEPS + 1))
    assert resumed.metrics() == whole.metrics() and resumed.samples().equals(whole.samples())
    assert resumed.state() == whole.state()
    ours, theirs = resumed.weights(), whole.weights()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    # What was thrown away is remembered: after step 1 as many queries have a history as were drawn.
    first = whole.records[1]
    assert first["ledger/filtered_queries"] > 0 and first["replay/queries_seen"] == first["ledger/queries"]


def test_extra_rollouts_and_records_for_people(mini):
    """onerpo: a group is one trained and two extra responses. Its evaluations go to tensorboard and to verl's jsonl."""
    folder = mini.folder / "generations"
    result = finished(mini.hosted(
        "bandit", "refill-onerpo", *SHORT, "algorithm.adv_estimator=onerpo", "data.extra_sampling_size=2", FILTER,
        "trainer.logger=[console,tensorboard]", "trainer.log_val_generations=3", f"trainer.validation_data_dir={folder}",
    ))  # fmt: skip
    samples = result.samples()
    for record in result.records[1:]:
        step = samples[samples.step == record["step"]]
        assert step.trained.sum() == 16 == record["ledger/responses_trained"] and len(step) == 3 * record["ledger/queries"]
        varies = step.groupby("index").reward.nunique() > 1
        assert (varies == ~step.groupby("index").filtered.first()).all()
        assert record["ledger/filtered_queries"] == (~varies).sum()
        assert record["train/zero_advantage"] == 0  # with a query's extra rewards no group is constant
    assert {path.name for path in folder.iterdir()} == {"0.jsonl", "3.jsonl"}
    lines = [json.loads(line) for line in (folder / "3.jsonl").read_text().splitlines()]
    written = result.evaluation(3)
    assert [line["output"] for line in lines] == list(written.text) and [line["set"] for line in lines] == list(written.split)
    assert all(line["gts"] == str(eval(line["input"].rstrip("="))) for line in lines)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(result.folder / "tensorboard"))
    events.Reload()
    texts = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("val/generations/text_summary")]
    assert len(texts) == 2 and all(text.count("### Sample") == 3 for text in texts)


def test_a_rollout_of_another_precision_is_corrected(runs):
    """With a rollout in bfloat16 its log-probabilities differ from the trainer's, as on a GPU: weights and rejections act."""
    first, plain = runs["half-corrected"].records[1], runs["half"].records[1]
    assert first["training/rollout_probs_diff_max"] == plain["training/rollout_probs_diff_max"] > 1e-4
    assert first["rollout_corr/rollout_is_max"] > 1.001 > 0.999 > first["rollout_corr/rollout_is_min"]
    assert 0 < first["rollout_corr/rollout_rs_masked_fraction"] < 1
    assert first["actor/grad_norm"] != pytest.approx(plain["actor/grad_norm"], rel=1e-4)


def test_clip_ratio_clips_where_there_are_several_updates(runs):
    assert not same(runs["clip-0.2"], runs["clip-0.02"])
    wide, narrow = (sum(record["actor/pg_clipfrac"] for record in runs[f"clip-{clip}"].records[1:]) for clip in (0.2, 0.02))
    assert narrow > wide


def test_benchmark_parts_best_step_and_template_in_one_run(runs):
    run = runs["asked"]
    samples, last = run.samples(), run.evaluation(3)
    for record in run.records[1:]:
        step = samples[samples.step == record["step"]]
        assert record["reward/length"] == pytest.approx(step["reward/length"].mean())
        assert (step["reward_text/first"] == step.text.str[:1]).all() and (step.reward == 1 - step["reward/length"] / 16).all()
    # The benchmark is the validation file here: the same questions, seeds and answers under another name.
    hard, validation = (last[last.split == name].reset_index(drop=True) for name in ("hard", "validation"))
    assert len(hard) == 16 and hard.text.equals(validation.text)
    final = run.records[-1]
    assert final["eval/hard/reward/length"] == pytest.approx(hard["reward/length"].mean())
    assert final["eval/hard/pass@1"] == final["eval/validation/pass@1"] and "eval/hard/pass@1" not in run.records[1]
    scores = {record["step"]: record[VALIDATION] for record in run.records[1:]}
    best = max(scores, key=scores.get)
    assert len(set(scores.values())) == 3 and 1 < best < 3  # kept for its score, not as the first or the newest
    assert json.loads((run.folder / "run.json").read_text())["best"] == {"step": best, VALIDATION: scores[best]}
    assert [path.name for path in run.folder.glob("checkpoints/global_step_*")] == [f"global_step_{best}"]
    home = run.folder / f"checkpoints/global_step_{best}/actor/huggingface"
    assert chat_template(home) == TEMPLATE  # so evaluation and export have it


def test_patience_ends_a_run_and_its_best_step_is_exported(mini, tmp_path, capsys):
    frequencies = ["trainer.test_freq=-1", "evaluation.val_freq=1", "trainer.save_freq=1"]
    settings = [N2, *own_reward(mini), *frequencies, "budget.patience=2"]
    run = finished(mini.hosted("grpo", "patience", *settings))
    scores = [record[VALIDATION] for record in run.records]  # of steps 0, 1, ...
    best = scores.index(max(scores))
    assert 0 < best == len(scores) - 3 < STEPS - 2
    recorded = json.loads((run.folder / "run.json").read_text())
    assert recorded["status"] == "finished" and "budget.patience=2" in recorded["ended_by"]
    again = finished(mini.hosted("grpo", "patience", *settings))
    assert "finished already" in again.output and again.records == run.records
    # Three checkpoints are kept, and the first of them is the best.
    assert main_export.main(["--model", str(run.folder), "--best", "--out", str(tmp_path / "best")]) == 0
    assert f"step {best}, " in capsys.readouterr().out
