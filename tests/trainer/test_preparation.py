"""A model and a data set are prepared by the command that their file names: on first use, and only where the run uses them."""

import json

import pytest

from Verl import REPO_ROOT
from Verl.data import arithmetic
from Verl.trainer import launch, preparation, settings

TINY = ["model=tiny", "data=arith", "trainer.device=cpu"]


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A run whose preparation notes in a file that it was carried out, and by which Python in which folder."""

    def make(*user):
        made = settings.compose("grpo", TINY, user)
        for kind in ("model", "data"):
            program = "import os, sys; print(sys.executable, os.getcwd())"
            made.run.prepare[kind].command = f'python -c "{program}" >> {tmp_path}/{kind}'
        monkeypatch.setattr(preparation, "outdated", lambda folder: "it is not there")
        return made

    return make


def done(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


def test_both_are_prepared_at_the_root_by_this_python(config, tmp_path):
    import sys

    assert preparation.prepare(config()) == 0
    assert done(tmp_path) == ["data", "model"]
    assert (tmp_path / "data").read_text().split() == [sys.executable, str(REPO_ROOT)]


@pytest.mark.parametrize(
    ("typed", "prepared"),
    [
        (["actor_rollout_ref.model.path=/models/mine"], ["data"]),
        (["data.train_files=a.parquet"], ["data", "model"]),  # the other two files are the data set's
        ([f"data.{key}_files=a.parquet" for key in ("train", "val", "test")], ["model"]),
        (["trainer.device=cuda"], []),
    ],
)
def test_what_a_run_does_not_use_is_not_prepared(config, tmp_path, typed, prepared, monkeypatch):
    monkeypatch.setattr(settings, "gpu_present", lambda: False)
    assert preparation.prepare(config(*typed)) == 0
    assert done(tmp_path) == prepared


def test_a_data_set_is_prepared_where_it_is_missing_or_outdated_only(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(preparation, "REPO_ROOT", tmp_path)
    made = settings.compose("grpo", TINY, ["actor_rollout_ref.model.path=/models/mine"])
    made.run.prepare.data.command = "echo again >> log"
    assert preparation.prepare(made) == 0 and "there is no manifest.json: preparing it" in capsys.readouterr().out
    folder = tmp_path / made.run.prepare.data.folder
    arithmetic.prepare(folder)
    assert preparation.prepare(made) == 0 and not capsys.readouterr().out
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["recipe"]["made"]["task"]["max_terms"] = 9
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert preparation.prepare(made) == 0 and "the task has changed in the code" in capsys.readouterr().out
    manifest["recipe"]["options"] = ["--seed", "7"]  # the command would make another set of it
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert preparation.prepare(made) == 0 and not capsys.readouterr().out
    assert (tmp_path / "log").read_text() == "again\nagain\n"


def test_a_failure_ends_the_run_with_its_status(config, tmp_path):
    made = config()
    made.run.prepare.model.command = "exit 7"
    assert preparation.prepare(made) == 7 and done(tmp_path) == []
    with pytest.raises(SystemExit) as ended:
        launch._prepare_here(made)
    assert ended.value.code == 7


def test_a_wrong_setting_is_said_before_anything_is_prepared(monkeypatch, capsys):
    monkeypatch.setattr(preparation, "prepare", lambda config: pytest.fail("prepared"))
    for arguments in ([*TINY, "@", "actor_rollout_ref.rollout.n=0"], ["--dry-run", *TINY, "data.train_batch_size=0"]):
        with pytest.raises(SystemExit) as ended:
            launch.main("grpo", arguments)
        assert ended.value.code == 2 and "at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("data.train_files=none.parquet", "data.train_files: none.parquet: no such file"),
        ("data.benchmarks.more=none.parquet", "data.benchmarks.more: none.parquet: no such file"),
        ("actor_rollout_ref.model.path=./none", "actor_rollout_ref.model.path=./none does not exist"),
        ("actor_rollout_ref.rollout.name=sglang", "choose hf or vllm"),
    ],
)
def test_what_no_preparation_makes_is_looked_for_before_one(monkeypatch, capsys, tmp_path, typed, said):
    """Or somebody waits for a minute while the model is trained, to hear that a file is missing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preparation, "prepare", lambda config: pytest.fail("prepared"))
    with pytest.raises(SystemExit) as ended:
        launch.main("grpo", [*TINY, "@", typed])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err.replace(f"{tmp_path}/", "")


def test_a_file_that_can_not_be_read_is_said_before_one(monkeypatch, capsys, tmp_path):
    (tmp_path / "own.parquet").write_text("no parquet")
    monkeypatch.setattr(preparation, "prepare", lambda config: pytest.fail("prepared"))
    with pytest.raises(SystemExit) as ended:
        launch.main("grpo", [*TINY, "@", f"data.val_files={tmp_path}/own.parquet"])
    assert ended.value.code == 2 and "own.parquet" in capsys.readouterr().err
