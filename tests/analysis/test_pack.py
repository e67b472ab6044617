"""A packed result folder and the loose one that it was made from say the same to every reader."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.analysis.simulated_runs import write_run
from tests.analysis.test_committed_results import ROOT, STUDIES
from Verl.analysis.report.build import build
from Verl.analysis.runs import pack, packed, unpack
from Verl.analysis.runs.table import evaluation_files, load_runs, question_scores
from Verl.analysis.samples import view
from Verl.files import write_atomic
from Verl.trainer import run_folder

ARMS = {"grpo_0032_1": 0.1, "grpo_0032_8": 0.2, "arpo_0032_8": 0.0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    loose, study = tmp_path_factory.mktemp("result"), tmp_path_factory.mktemp("study")
    for arm, gain in ARMS.items():
        for seed in range(3):
            write_run(loose, arm, seed, gain, full=True, steps=(0, 50, 100))
    assert pack.pack(loose, study)[0] == 2
    return loose, study / "result"


def test_runs_and_their_scores_are_the_same(folders):
    loose, packed_dir = folders
    assert load_runs(packed_dir).table.equals(load_runs(loose).table)
    assert load_runs(packed_dir).problems == load_runs(loose).problems
    run = "grpo_0032_8_tiny_arith_seed1"
    ours, theirs = evaluation_files(packed_dir, run), evaluation_files(loose, run)
    assert list(ours) == list(theirs) == [0, 100]
    for step in ours:
        assert question_scores(ours[step]).equals(question_scores(theirs[step]))
    assert evaluation_files(packed_dir, "no_such_run") == {}


def test_the_report_is_the_same(folders):
    assert build(folders[0]) == build(folders[1])


def test_answers_can_be_looked_at(folders):
    run, filters = "grpo_0032_8_tiny_arith_seed1", view.Filters(evaluation="test", index=3)
    seen = [view.build_view(view.find_run(run, folder), filters, None) for folder in folders]
    assert [one.sample["text"] for one in seen[0].entries] == [one.sample["text"] for one in seen[1].entries]
    assert len(seen[1].entries) == 2


def test_a_loose_file_counts_before_a_packed_one_and_adds_to_it(folders, tmp_path):
    shutil.copytree(folders[1], tmp_path, dirs_exist_ok=True)
    run = "grpo_0032_8_tiny_arith_seed1"
    (tmp_path / f"{run}.jsonl").write_text('{"step": 7, "eval/test/pass@1": 0.125}\n')
    new = write_run(tmp_path, "grpo_0032_8", 3, full=True)
    table = load_runs(tmp_path).table
    assert table.loc[table["run"] == run, "step"].tolist() == [7]
    assert new in set(table["run"]) and table["run"].nunique() == 10


def test_packing_a_packed_folder_again_changes_nothing(folders, tmp_path):
    pack.pack(folders[1], tmp_path)
    for name in (packed.RUNS, packed.EVALUATIONS):
        assert (tmp_path / "result" / name).read_bytes() == (folders[1] / name).read_bytes()


def test_scores_stay_where_answers_are_left_out(folders, tmp_path):
    pack.pack(folders[1], tmp_path, answers_of=[1])
    lean = tmp_path / "result"
    for seed in range(3):
        run = f"grpo_0032_8_tiny_arith_seed{seed}"
        ours, theirs = evaluation_files(lean, run), evaluation_files(folders[0], run)
        assert all(question_scores(ours[step]).equals(question_scores(theirs[step])) for step in (0, 100))
        assert ("text" in packed.column_names(ours[100])) == (seed == 1)
    assert build(lean) != "" and load_runs(lean).table.equals(load_runs(folders[0]).table)
    run = view.find_run("grpo_0032_8_tiny_arith_seed1", lean)
    assert len(view.build_view(run, view.Filters(evaluation="test", index=3), None).entries) == 2


def test_of_equal_columns_one_is_stored_and_all_are_read(folders, tmp_path):
    table = pa.table({"index": [0, 1], "strict": [1.0, 0.0], "flexible": [1.0, 1.0], "reward": [1.0, 0.0], "sample": [0, 1]})
    stored = pack._without_twins(table)
    assert stored.column_names == ["index", "strict", "flexible"]
    pq.write_table(stored, tmp_path / packed.EVALUATIONS)
    assert packed._read_evaluations(tmp_path / packed.EVALUATIONS, (0,)).equals(table)
    loose = pq.read_table(folders[0] / "grpo_0032_8_tiny_arith_seed1/evaluations/step_000100.parquet")
    path = folders[1] / "grpo_0032_8_tiny_arith_seed1/evaluations/step_000100.parquet"
    kept = packed.read_rows(path, [name for name in loose.column_names if name not in ("tokens", "log_prob")])
    assert kept.equals(loose.select(kept.column_names))


def test_timings_keep_four_digits_and_everything_else_its_bytes(folders, tmp_path):
    loose = tmp_path / "loose"
    run = write_run(loose, "grpo_0032_1", 0, full=True)
    path = loose / f"{run}.jsonl"
    lines = path.read_text().splitlines()
    record = json.loads(lines[-1]) | {"timing_s/step": 1.23456789, "actor/loss": 0.123456789, "ledger/total_hours": 0.123456789}
    path.write_text("\n".join([*lines[:-1], json.dumps(record), '{"step": 101, "timing_s/step": 1.234567']))
    pack.pack(loose, tmp_path)
    kept = packed.read_text(tmp_path / "result" / f"{run}.jsonl").splitlines()
    assert kept[:-2] == lines[:-1] and kept[-1] == '{"step": 101, "timing_s/step": 1.234567'
    assert json.loads(kept[-2]) == record | {"timing_s/step": 1.235}


def test_of_a_folder_of_two_studies_one_is_packed(folders, tmp_path, capsys):
    shutil.copytree(folders[1], tmp_path / "shared")
    wanted = [f"{arm}_tiny_arith_seed1" for arm in ("grpo_0032_1", "grpo_0032_8")]
    (tmp_path / "shared/study_mine.json").write_text(json.dumps({"runs": [{"run": run} for run in wanted]}))
    assert pack.main([str(tmp_path / "shared"), str(tmp_path / "mine"), "--study", "mine"]) == 0
    assert sorted(load_runs(tmp_path / "mine/result").table["run"].unique()) == wanted
    assert pack.main([str(tmp_path / "shared"), str(tmp_path / "other"), "--study", "other"]) == 2
    assert "study_other.json is in none of" in capsys.readouterr().err


def test_two_studies_stand_side_by_side(folders, tmp_path):
    write_run(tmp_path / "other", "grpo_0032_1", 0, full=True, pair="smollm135m_largest")
    pack.pack([folders[1], tmp_path / "other"], tmp_path / "both")
    table = load_runs(tmp_path / "both/result").table
    assert set(table["pair"]) == {"tiny_arith", "smollm135m_largest"} and table["run"].nunique() == 10
    assert list(evaluation_files(tmp_path / "both/result", "grpo_0032_1_smollm135m_largest_seed0"))


def test_a_run_that_two_folders_hold_is_refused(folders, tmp_path, capsys):
    assert pack.main([str(folders[0]), str(folders[1]), str(tmp_path)]) == 2
    assert "the run arpo_0032_8_tiny_arith_seed0 is in" in capsys.readouterr().err and not [*tmp_path.iterdir()]


def test_a_folder_without_runs_is_refused(tmp_path, capsys):
    assert pack.main([str(tmp_path), str(tmp_path / "study")]) == 2
    assert f"no run found in {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize("study", sorted(path.name for path in (ROOT / STUDIES).iterdir()))
def test_a_committed_study_is_small(study):
    files = [path for path in (ROOT / STUDIES / study).rglob("*") if path.is_file()]
    assert len(files) <= pack.MOST_FILES and sum(path.stat().st_size for path in files) <= pack.MOST_BYTES


def test_unpacked_runs_are_those_that_were_packed_and_count_as_done(folders, tmp_path, capsys):
    loose, packed_dir = folders
    assert unpack.main([str(packed_dir.parent), str(tmp_path / "result")]) == 0
    back = tmp_path / "result"
    for pattern in ("*.jsonl", "*/run.json", "*/config.yaml"):
        wanted = {path.relative_to(loose): path.read_bytes() for path in loose.glob(pattern)}
        assert wanted and {path.relative_to(back): path.read_bytes() for path in back.glob(pattern)} == wanted
    run = "grpo_0032_8_tiny_arith_seed1"
    ours, theirs = evaluation_files(back, run), evaluation_files(loose, run)
    for step in (0, 100):
        assert question_scores(ours[step]).equals(question_scores(theirs[step]))
    assert run_folder.finished(back / run, 100, {}) and not run_folder.finished(back / run, 101, {"steps": 101})
    pack.pack(back, tmp_path / "again")
    for name in (packed.RUNS, packed.EVALUATIONS):
        assert (tmp_path / "again/result" / name).read_bytes() == (packed_dir / name).read_bytes()


def test_the_very_run_that_was_packed_may_be_there_and_stays_as_it_is(folders, tmp_path):
    """With timings and token ids that its pack has not."""
    run = write_run(tmp_path / "loose", "grpo_0032_1", 0, full=True)
    path = tmp_path / "loose" / f"{run}.jsonl"
    path.write_text("".join(json.dumps(json.loads(line) | {"timing_s/step": 1.23456789}) + "\n" for line in path.open()))
    pack.pack(tmp_path / "loose", tmp_path)
    before = {file: file.read_bytes() for file in (tmp_path / "loose").rglob("*") if file.is_file()}
    assert unpack.unpack(tmp_path, tmp_path / "loose") == []
    (tmp_path / "loose" / run / "run.json").unlink()
    assert unpack.unpack(tmp_path, tmp_path / "loose") == [run]
    assert {file: file.read_bytes() for file in before} == before


def test_a_run_counts_as_finished_only_when_all_of_it_is_there(folders, tmp_path, monkeypatch):
    """Cut after every number of files: what has a run.json has everything else."""
    def cut(path, content):
        if len(written) == most:
            raise KeyboardInterrupt
        written.append(path)
        write_atomic(path, content)

    monkeypatch.setattr(unpack, "write_atomic", cut)
    for most in range(0, 30, 3):
        written, result = [], tmp_path / str(most)
        with pytest.raises(KeyboardInterrupt):
            unpack.unpack(folders[1].parent, result)
        for record in result.glob("*/run.json"):
            assert Path(f"{record.parent}.jsonl").is_file() and len(list(record.parent.glob("evaluations/*"))) == 2


def test_unpacking_completes_what_a_kill_left_and_writes_over_nothing(folders, tmp_path, capsys):
    study, result = folders[1].parent, tmp_path / "result"
    wanted = unpack.unpack(study, result)
    cut = result / wanted[0]
    (cut / "run.json").unlink()
    (cut / "evaluations/step_000100.parquet").unlink()
    assert unpack.unpack(study, result) == wanted[:1] and list(evaluation_files(result, wanted[0])) == [0, 100]
    assert unpack.unpack(study, result) == []
    Path(f"{cut}.jsonl").write_text("{}\n")
    (result / wanted[1] / "run.json").unlink()
    assert unpack.main([str(study), str(result)]) == 2
    assert f"{cut}.jsonl is there and is not the study's" in capsys.readouterr().err
    assert not (result / wanted[1] / "run.json").exists()
    assert unpack.main([str(tmp_path), str(result)]) == 2
