"""What compared runs stood on: differences are named, old logs are unknown, and nothing that is missing stops the report."""

import json

import pytest
from simulated_runs import write_run

from Verl.analysis.report.build import build
from Verl.analysis.runs.foundations import compared_on_other_ground, ground
from Verl.analysis.runs.table import load_runs

PAIR = "tiny_arith"
BASE, ARM = "grpo_0032_1", "grpo_0032_8"
STANDS_ON = {
    "data.train_files/Dataset/train.parquet": "a" * 64,
    "data.test_files/Dataset/test.parquet": "b" * 64,
    "model.weights": "c" * 64,
    "code": "d" * 64,
    "threads": 2,
    "device": "cpu",
    "version.torch": "2.13.0",
}


@pytest.fixture
def study(tmp_path):
    """Two arms of two seeds; `make(arm, seed, **entries)` writes a run, with `stands_on` None for an old log."""

    def make(changes=None, arm=ARM, **run_json):
        for one in (BASE, ARM):
            for seed in (0, 1):
                own = STANDS_ON | (changes or {}) if one == arm else STANDS_ON
                stands_on = {key: value for key, value in own.items() if value is not None}
                path = tmp_path / write_run(tmp_path, one, seed, full=True, steps=(0, 100)) / "run.json"
                own = {"stands_on": stands_on} | (run_json if one == arm else {})
                path.write_text(json.dumps(json.loads(path.read_text()) | own))
        return tmp_path

    return make


def named(folder):
    return compared_on_other_ground(folder, load_runs(folder).table, PAIR, [(ARM, BASE)])


def test_runs_that_stand_on_the_same_are_compared_without_a_word(study):
    assert named(study()) == []
    moved = {"data.test_files/Dataset/test.parquet": None, "data.test_files/elsewhere/test.parquet": "b" * 64}
    assert named(study(moved)) == []  # the same contents under another path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.test_files/Dataset/test.parquet": "e" * 64}, "data.test_files (eeeeeeee and bbbbbbbb)"),
        ({"model.weights": "e" * 64}, "model.weights (eeeeeeee and cccccccc)"),
        ({"code": "e" * 64}, "code (eeeeeeee and dddddddd)"),
        ({"threads": 1}, "threads (1 and 2)"),
        ({"device": "cuda (NVIDIA A100)"}, "device"),
        ({"version.torch": "2.14.0"}, "version.torch (2.14.0 and 2.13.0)"),
        ({"reward_function": "f" * 64}, "reward_function (ffffffff and nothing)"),
        ({"model.chat_template": "f" * 64}, "model.chat_template (ffffffff and nothing)"),
    ],
)
def test_a_comparison_on_other_ground_is_named(study, changes, said):
    (sentence,) = named(study(changes))
    assert said in sentence and f"{ARM} with {BASE}" in sentence
    assert ";" not in sentence  # nothing else is said to differ


def test_the_report_says_it_beside_the_comparison_and_among_what_is_wrong(study):
    folder = study(
        {"code": "e" * 64},
        left_out={"train": 12, "test": 0},
        questions={"train": 500, "test": 512},
        overrides=["seed=0", "actor_rollout_ref.rollout.temperature=0.7"],
        changed=[{"from_step": 25, "entries": {"threads": [1, 2]}}],
        copies={"train": {"questions": 4, "of": 500, "first": "x", "same_as": "y"}},
    )
    page = build(folder)
    assert page.count("compared although their runs differ in code") == 2
    resumed = "resumed at step 25 on something else: threads (was 1, is 2)"
    for part in ("train 12 of 512", "temperature=0.7", resumed, "train 4"):
        assert part in page, part
    assert "test 0" not in page and "is unknown" not in page


def test_old_logs_are_said_to_be_unknown(study, tmp_path):
    folder = study()
    for path in folder.glob(f"{ARM}_*/run.json"):
        run_json = json.loads(path.read_text())
        run_json.pop("stands_on")
        path.write_text(json.dumps(run_json))
    assert named(folder) == []
    table = load_runs(folder).table
    assert ground(folder, table, PAIR).unknown.startswith("2 of 4 runs on tiny_arith have no record of the data, model, code")
    for path in folder.glob("*/run.json"):
        run_json = json.loads(path.read_text())
        path.write_text(json.dumps({key: value for key, value in run_json.items() if key != "stands_on"}))
    assert ground(folder, table, PAIR).unknown.startswith("No run on tiny_arith has a record")
    assert "No run on tiny_arith has a record" in build(folder)
    old = folder / f"{ARM}_{PAIR}_seed0/run.json"
    old.write_text(json.dumps(json.loads(old.read_text()) | {"commit": "another"}))
    (sentence,) = named(folder)  # what they do record is compared
    assert "commit (another and abc1234)" in sentence


@pytest.mark.parametrize("text", ["", "[]", '{"stands_on": 3, "left_out": [1], "changed": ["x"], "overrides": null}'])
def test_a_record_that_cannot_be_read_stops_nothing(study, text):
    folder = study()
    (folder / f"{ARM}_{PAIR}_seed0/run.json").write_text(text)
    assert named(folder) == [] and "1 of 4 runs" in ground(folder, load_runs(folder).table, PAIR).unknown
    assert "grpo_0032_8" in build(folder)
