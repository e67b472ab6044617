"""A study as pandas frames: loose or packed the same, each worked out when it is asked for."""

import pandas as pd
import pytest
from simulated_runs import write_study

from Verl.analysis import load_study
from Verl.analysis.runs.pack import pack
from Verl.errors import UserError

GAINS = {"grpo_0032_1": 0.1, "grpo_0032_8": 0.35}


@pytest.fixture(scope="module")
def loose(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, GAINS, range(3), questions=128, steps=(0, 50, 100), full=True)
    return folder


def test_runs_evaluations_and_verdicts_are_frames(loose):
    study = load_study(loose)
    assert len(study.runs) == 6 and len(study.steps) == 18
    run = study.runs.set_index("run").loc["grpo_0032_8_tiny_arith_seed1"]
    rows = study.steps[study.steps["run"] == run.name].set_index("step")
    assert (run["seed"], run["steps"], run["final"]) == (1, 100, rows.loc[100, "eval/test/pass@1"])
    assert run["start"] == rows.loc[0, "eval/test/pass@1"] and run["command"].endswith("seed=1")
    answers = study.evaluations
    of_run = answers[(answers["run"] == run.name) & (answers["step"] == 100)]
    assert len(of_run) == 128 and of_run["strict"].mean() == run["final"] and "text" not in answers
    [row] = study.verdicts[(study.verdicts["arm"] == "grpo_0032_8") & (study.verdicts["reference"] == "grpo_0032_1")].to_dict(
        "records"
    )
    assert row["verdict"] == "better" and row["low"] < row["difference"] < row["high"] and row["seeds"] == 3
    table = study.table.set_index("arm")
    assert table.loc["grpo_0032_8", "marginal_gain"] == pytest.approx(row["difference"])
    texts = study.answers(run=run.name, split="test")
    assert texts["text"].str.contains("#").all() and set(texts["run"]) == {run.name}


def test_a_packed_study_is_the_same(loose, tmp_path):
    pack(loose, tmp_path)
    ours, packed = load_study(loose), load_study(tmp_path)
    pd.testing.assert_frame_equal(ours.runs, packed.runs)
    columns = ["run", "step", "split", "index", "sample", "strict"]
    both = [one.evaluations[columns].sort_values(columns, ignore_index=True) for one in (ours, packed)]
    pd.testing.assert_frame_equal(*both)


def test_what_is_not_there_is_one_sentence(loose, tmp_path):
    for folder, said in ((tmp_path / "absent", "is not a folder"), (tmp_path, "no run found")):
        with pytest.raises(UserError, match=said):
            load_study(folder)
    with pytest.raises(UserError, match="there is no run x"):
        load_study(loose).answers(run="x")
