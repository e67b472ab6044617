"""Reading result folders: what is fine is read, and every fault is named in a sentence."""

import json
import math
import os
import time

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from simulated_runs import write_run, write_study

from Verl.analysis.runs.run_file import arm_numbers, parse_name
from Verl.analysis.runs.table import evaluation_files, load_runs, question_samples, question_scores

TEST = "eval/test/pass@1"


def _named(runs, *words):
    """The problems that hold all the words."""
    return [problem for problem in runs.problems if all(word in problem for word in words)]


@pytest.mark.parametrize(
    "name, arm, pair, seed",
    [
        ("grpo_0032_1_tiny_arith_seed0", "grpo_0032_1", "tiny_arith", 0),
        ("onerpo_0032_1_7_tiny_arith_seed12", "onerpo_0032_1_7", "tiny_arith", 12),
        ("asyttgrpo_0064_4_8_qwen0.5b_gsm_seed3", "asyttgrpo_0064_4_8", "qwen0.5b_gsm", 3),
        ("grpo_0032_8_qwen0.5b_math", "grpo_0032_8", "qwen0.5b_math", None),
    ],
)
def test_names(name, arm, pair, seed):
    parsed = parse_name(name)
    assert (parsed["arm"], parsed["pair"], parsed["seed"]) == (arm, pair, seed)
    assert f"{parsed['model']}_{parsed['data']}" == pair


def test_names_that_are_none():
    assert parse_name("report") is None and parse_name("a_b_seed1") is None


def test_arm_numbers():
    assert arm_numbers("grpo_0032_8") == {"queries": 32, "trained": 256, "generated": 256}
    assert arm_numbers("onerpo_0032_1_7") == {"queries": 32, "trained": 32, "generated": 256}
    assert arm_numbers("asyttgrpo_0064_4_8") == {"queries": 64, "trained": 256, "generated": 256}
    assert arm_numbers("control") is None


def test_a_clean_study_has_no_problems(tmp_path):
    write_study(tmp_path, {"grpo_0032_1": 0.1, "grpo_0032_8": 0.2}, seeds=[0, 1, 2])
    runs = load_runs(tmp_path)
    assert runs.problems == []
    assert len(runs.table) == 2 * 3 * 11
    first = runs.table.iloc[0]
    assert (first["run"], first["step"], first["config_hash"]) == (
        "grpo_0032_1_tiny_arith_seed0",
        0,
        "hash-grpo_0032_1",
    )
    line = json.loads((tmp_path / "grpo_0032_8_tiny_arith_seed2.jsonl").read_text().splitlines()[3])
    row = runs.table[(runs.table["run"] == "grpo_0032_8_tiny_arith_seed2") & (runs.table["step"] == 30)].iloc[0]
    assert {key: row[key] for key in line} == line


def test_a_truncated_last_line_is_skipped_and_named(tmp_path):
    name = write_run(tmp_path, "grpo_0032_8", 0)
    path = tmp_path / f"{name}.jsonl"
    path.write_text(path.read_text()[:-40])
    runs = load_runs(tmp_path)
    assert _named(runs, name, "line 11", "cut off")
    assert runs.table["step"].max() == 90


def test_a_broken_line_in_the_middle_is_named_as_such(tmp_path):
    name = write_run(tmp_path, "grpo_0032_8", 0)
    path = tmp_path / f"{name}.jsonl"
    lines = path.read_text().splitlines()
    lines[4] = "[1, 2]"
    path.write_text("\n".join(lines))
    runs = load_runs(tmp_path)
    assert _named(runs, name, "line 5", "not a metrics object")
    assert 40 not in set(runs.table["step"]) and runs.table["step"].max() == 100


def test_nan_is_named_with_metric_and_first_step(tmp_path):
    name = write_run(tmp_path, "grpo_0032_8", 0)
    path = tmp_path / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[5:]:
        row["actor/grad_norm"] = float("nan")
    rows[7][TEST] = None
    path.write_text("\n".join(json.dumps(row) for row in rows))
    runs = load_runs(tmp_path)
    assert _named(runs, name, "actor/grad_norm", "6 step(s)", "first at step 50")
    assert _named(runs, name, TEST, "first at step 70")
    assert len(runs.problems) == 2


def test_a_missing_or_broken_run_json_falls_back_to_the_name(tmp_path):
    one, two = write_run(tmp_path, "grpo_0032_8", 0), write_run(tmp_path, "grpo_0032_8", 1)
    (tmp_path / one / "run.json").unlink()
    (tmp_path / two / "run.json").write_text("{broken")
    runs = load_runs(tmp_path)
    assert _named(runs, one, "no run.json") and _named(runs, two, "cannot be read")
    assert set(runs.table["arm"]) == {"grpo_0032_8"} and set(runs.table["seed"]) == {0, 1}


def test_a_run_json_that_contradicts_the_name_counts_and_is_named(tmp_path):
    name = write_run(tmp_path, "grpo_0032_8", 0, seed_noise=0.0)
    run_json = tmp_path / name / "run.json"
    run_json.write_text(json.dumps(json.loads(run_json.read_text()) | {"data": "gsm", "pair": "tiny_gsm"}))
    runs = load_runs(tmp_path)
    assert _named(runs, name, "'tiny_gsm'", "'tiny_arith'")
    assert set(runs.table["pair"]) == {"tiny_gsm"}


def test_mixed_configurations_under_one_name(tmp_path):
    for seed, config in ((0, "aaaa"), (1, "aaaa"), (2, "bbbb")):
        write_run(tmp_path, "grpo_0032_8", seed, config_hash=config)
    assert _named(
        load_runs(tmp_path), "grpo_0032_8 on tiny_arith", "2 configurations", "aaaa (seed 0, 1)", "bbbb (seed 2)"
    )


def test_missing_seeds(tmp_path):
    write_study(tmp_path, {"grpo_0032_1": 0.1, "grpo_0032_8": 0.2, "grpo_0032_16": 0.2}, seeds=[0, 1, 2])
    for seed in (3, 4):  # more seeds for the base line alone are no fault of the others
        write_run(tmp_path, "grpo_0032_1", seed)
    assert load_runs(tmp_path).problems == []
    (tmp_path / "grpo_0032_16_tiny_arith_seed1.jsonl").unlink()
    (tmp_path / "grpo_0032_8_tiny_arith_seed2.jsonl").unlink()
    runs = load_runs(tmp_path)
    assert _named(runs, "grpo_0032_16 on tiny_arith: seed 1 missing (has 0, 2)")
    assert _named(runs, "grpo_0032_8 on tiny_arith: seed 2 missing (has 0, 1)")
    assert len(_named(runs, "neither jsonl nor log")) == 2 and len(runs.problems) == 4


def test_two_runs_of_one_seed_the_finished_one_counts(tmp_path):
    name = write_run(tmp_path, "grpo_0032_8", 0)
    other = tmp_path / "again_tiny_arith_seed0.jsonl"
    other.write_text((tmp_path / f"{name}.jsonl").read_text() + '{"step": 110, "eval/test/pass@1": 0.9}\n')
    (tmp_path / "again_tiny_arith_seed0").mkdir()
    run_json = json.loads((tmp_path / name / "run.json").read_text()) | {"status": "failed"}
    (tmp_path / "again_tiny_arith_seed0" / "run.json").write_text(json.dumps(run_json))
    runs = load_runs(tmp_path)
    assert _named(runs, "2 runs of seed 0", f"{name} is used", "again_tiny_arith_seed0 left out")
    assert _named(runs, "again_tiny_arith_seed0", "is failed", "last step is 110")
    assert set(runs.table["run"]) == {name}


def test_a_resumed_run_counts_its_last_line_and_says_so(tmp_path):
    name = write_run(tmp_path, "grpo_0032_8", 0, steps=(0, 10, 20))
    path = tmp_path / f"{name}.jsonl"
    path.write_text(path.read_text() + json.dumps({"step": 20, TEST: 0.123}) + "\n")
    runs = load_runs(tmp_path)
    assert _named(runs, name, "step 20", "more than once")
    last = runs.table.iloc[-1]
    assert last[TEST] == 0.123 and last["train/reward_mean"] == 0.5  # the two lines are one step


def test_unusable_files_and_folders_are_named(tmp_path):
    (tmp_path / "notes.jsonl").write_text('{"step": 1}\n')
    (tmp_path / "grpo_0032_8_tiny_arith_seed0.jsonl").write_text("")
    runs = load_runs(tmp_path)
    assert runs.table.empty and list(runs.table.columns[:3]) == ["run", "pair", "arm"]
    assert _named(runs, "notes", "left out") and _named(runs, "seed0", "holds no step")
    assert _named(load_runs(tmp_path / "nowhere"), "no run found")


def test_verls_console_log(tmp_path):
    (tmp_path / "grpo_0032_8_qwen0.5b_gsm.log").write_text(
        "some noise - step: nothing\n"
        "\x1b[36m(TaskRunner pid=12)\x1b[0m step:0 - val-core/openai/gsm8k/reward/mean@1:0.31 - val-aux/turns/min:2\n"
        "(TaskRunner pid=12) step:1 - critic/score/mean:np.float64(0.25) - actor/kl_loss:1.5e-05 - timing_s/step:36.0\n"
        "(TaskRunner pid=12) step:2 - critic/score/mean:0.5 - actor/kl_loss:nan - timing_s/step:36.0"
        " - val-core/openai/gsm8k/reward/mean@1:0.4 - training/note:abc\n"
    )
    runs = load_runs(tmp_path)
    table = runs.table.set_index("step")
    assert table[TEST].dropna().to_dict() == {0: 0.31, 2: 0.4}
    assert table.loc[1, "train/reward_mean"] == 0.25 and table.loc[1, "actor/kl_loss"] == 1.5e-5
    assert table["ledger/total_queries"].tolist() == [0, 32, 64]
    assert table["ledger/total_gradient_samples"].tolist() == [0, 256, 512]
    assert table["ledger/total_hours"].tolist() == pytest.approx([0, 0.01, 0.02])
    assert _named(runs, "names no seed") and _named(runs, "logs no ledger") and _named(runs, "actor/kl_loss is NaN")
    assert not _named(runs, "cut off")


def test_a_console_log_that_breaks_off_in_a_number(tmp_path):
    (tmp_path / "grpo_0032_8_qwen0.5b_gsm.log").write_text(
        "step:10 - response_length/mean:100.0 - timing_s/step:36.0\n"
        "step:20 - response_length/mean:50.0 - timing_s/step:36.0 - critic/score/mean:0.4"
    )
    runs = load_runs(tmp_path)
    assert _named(runs, "line 2", "cut off") and "train/reward_mean" not in runs.table
    tokens = 10 * 256 * 100.0  # lines 1 to 9 are missing and taken to be as line 10
    assert runs.table["ledger/total_tokens_generated"].tolist() == [tokens, tokens + 10 * 256 * 50.0]
    assert runs.table["ledger/total_hours"].tolist() == pytest.approx([0.1, 0.2])


def test_numbers_that_json_has_not_are_read_as_our_trainer_writes_them(tmp_path):
    name = write_run(tmp_path, "grpo_0032_8", 0)
    with open(tmp_path / f"{name}.jsonl", "a") as file:
        file.write('{"step": 110, "actor/grad_norm": "nan", "actor/loss": "-inf", "x": "text"}\n')
    runs = load_runs(tmp_path, lambda key: key == "actor/loss")
    assert runs.table["actor/loss"].iloc[-1] == -math.inf and runs.broken[name] == 2
    assert _named(runs, "actor/grad_norm is NaN", "step 110") and _named(runs, "not a number and left out: x")


def test_verls_file_logger_and_the_jsonl_before_the_log(tmp_path):
    (tmp_path / "grpo_0032_8_tiny_arith_seed0.jsonl").write_text('{"step": 1, "data": {"eval/test/pass@1": 0.5}}\n')
    (tmp_path / "grpo_0032_8_tiny_arith_seed0.log").write_text("step:1 - eval/test/pass@1:0.9\n")
    assert load_runs(tmp_path).table[TEST].tolist() == [0.5]


def test_question_scores_average_the_samples_of_a_question(tmp_path):
    folder = tmp_path / "x" / "evaluations"
    folder.mkdir(parents=True)
    table = pd.DataFrame({"split": ["test"] * 4 + ["train"], "index": [7, 7, 3, 3, 3], "strict": [1.0, 0.0, 1, 1, 0]})
    table["data_source"] = "sums"
    for step in (100, 25):
        table.to_parquet(folder / f"step_{step:06d}.parquet")
    (folder / "step_later.parquet").write_text("")
    files = evaluation_files(tmp_path, "x")
    assert list(files) == [25, 100]
    assert question_scores(files[25]).to_dict() == {("sums", 3): 1.0, ("sums", 7): 0.5}
    assert question_scores(files[25], split="validation").empty
    # An evaluation at an end of the run, with more samples than one.
    numbered = pd.DataFrame({"split": "test", "index": [7, 3, 7, 3], "strict": [1.0, 0, 0, 1], "sample": [0, 0, 1, 1]})
    numbered.assign(data_source="sums").to_parquet(folder / "step_000200.parquet")
    samples = question_samples(evaluation_files(tmp_path, "x")[200])
    assert list(samples.columns) == [0, 1] and samples.loc[("sums", 3)].tolist() == [0.0, 1.0]


def test_two_hundred_runs_are_read_quickly(tmp_path):
    for seed in range(40):
        for arm in ("grpo_0032_1", "grpo_0032_8", "arpo_0032_8", "onerpo_0032_1_7", "banditpo_0032_8_8"):
            write_run(tmp_path, arm, seed, questions=8)
    start = time.process_time()
    runs = load_runs(tmp_path)
    assert time.process_time() - start < 5.0
    assert runs.problems == [] and runs.table["run"].nunique() == 200


def test_questions_are_paired_by_data_source_and_index(tmp_path):
    """Two benchmarks in one test set: question 0 of one is not question 0 of the other."""
    path = tmp_path / "step_000001.parquet"
    table = {
        "split": ["test"] * 4,
        "data_source": ["b", "a", "b", "a"],
        "index": [0, 0, 1, 1],
        "strict": [1.0, 0.0, 0.5, 0.25],
    }
    pq.write_table(pa.table(table), path)
    scores = question_scores(path)
    assert list(scores) == [0.0, 0.25, 1.0, 0.5] and scores.index[0] == ("a", 0)


def test_an_evaluation_that_was_exchanged_is_read_again(tmp_path):
    """Also under the old size and time stamp."""
    path = tmp_path / "step_000001.parquet"
    for value in (0.0, 1.0):
        table = pa.table({"split": ["test"], "data_source": ["a"], "index": [0], "strict": [value]})
        pq.write_table(table, path)
        os.utime(path, ns=(10**18, 10**18))
        assert list(question_scores(path)) == [value]
