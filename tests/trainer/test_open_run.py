"""A run's folder: the same run goes on, another one under its name is refused, and nothing is lost to a fresh start."""

import json
import shutil
from pathlib import Path

import pytest
from omegaconf import open_dict

from Verl import REPO_ROOT
from Verl.analysis.live.current import Looker
from Verl.analysis.runs.table import load_runs
from Verl.base_models.tokenizer import build_tokenizer
from Verl.data import arithmetic
from Verl.errors import UserError
from Verl.files import write_atomic
from Verl.study import shipped
from Verl.trainer import identity, launch, run_folder
from Verl.trainer.ppo.checkpoint_files import STATE, checkpoint_steps
from Verl.trainer.run_checks import check_epochs, check_resume, settle_resume

SCRIPT = "run_grpo_0032_8_tiny_arith.sh"
NAME = "grpo_0032_8_tiny_arith_seed0"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Overrides for data and a model of these tests' own: the shipped ones are not there before a script has prepared them."""
    folder = tmp_path_factory.mktemp("data")
    build_tokenizer(64).save_pretrained(folder / "model")
    (folder / "model/config.json").write_text(json.dumps({"model_type": "qwen2"}))
    (folder / "model/model.safetensors").write_bytes(b"weights")
    arithmetic.prepare(folder, sizes={"train": 512, "validation": 8, "test": 8})
    files = (("train", "train"), ("val", "validation"), ("test", "test"))
    return [f"actor_rollout_ref.model.path={folder}/model",
            *(f"data.{key}_files={folder}/{split}.parquet" for key, split in files)]  # fmt: skip


@pytest.fixture
def opened(tmp_path, data):
    """The config of a run in a result folder of its own; `lived` has it take steps and save."""

    def make(*overrides: str):
        config = shipped.prepare(SCRIPT, [f"run.result_dir={tmp_path}", *data, *overrides]).config
        with open_dict(config):
            # Whatever the overrides would do to the name: these tests are about one run.
            config.run.name, config.run.dir = NAME, str(tmp_path / NAME)
        return config

    return make


def lived(config, step: int, status: str, saved: tuple[int, ...] = ()) -> None:
    folder = Path(config.run.dir)
    write_atomic(folder / "config.yaml", launch._recorded(config))
    record = {"status": status, "arm": "grpo_0032_8", "pair": "tiny_arith", "seed": 0}
    write_atomic(folder / "run.json", json.dumps(record))
    write_atomic(Path(f"{folder}.jsonl"), "".join(f'{{"step": {k}, "x": 0.5}}\n' for k in range(step + 1)))
    write_atomic(Path(f"{folder}.log"), "said\n")
    write_atomic(folder / "samples" / "step_000001.parquet", "said\n")
    for k in saved:
        write_atomic(Path(config.trainer.default_local_dir) / f"global_step_{k}" / STATE, str(k))


def saved(config) -> list[int]:
    return checkpoint_steps(Path(config.trainer.default_local_dir))


def test_a_path_in_the_repository_is_the_same_run_however_it_is_written(opened):
    config = opened(f"actor_rollout_ref.model.path={REPO_ROOT}/.cache/models/tiny")
    assert launch._open_run(config)
    write_atomic(Path(config.run.dir) / "config.yaml", launch._recorded(config))
    assert str(REPO_ROOT) not in (Path(config.run.dir) / "config.yaml").read_text()
    assert launch._open_run(config)
    assert launch._open_run(opened("actor_rollout_ref.model.path=.cache/models/tiny"))
    with pytest.raises(UserError, match=r"exists with other settings \(actor_rollout_ref.actor.optim.lr\)"):
        launch._open_run(opened("actor_rollout_ref.model.path=.cache/models/tiny", "actor_rollout_ref.actor.optim.lr=1e-3"))


@pytest.mark.parametrize("status", ["interrupted", "finished"])
@pytest.mark.parametrize("key", ["run.overwrite=true", "trainer.resume_mode=disable"])
def test_a_fresh_start_sets_everything_aside_each_time(opened, tmp_path, capsys, key, status):
    for number in (1, 2):
        lived(opened(), 5, status, saved=(4,))
        assert launch._open_run(opened(key))
        aside = tmp_path / "before" / f"{NAME}.{number}"
        assert f"before/{NAME}.{number}" in capsys.readouterr().err
        assert sorted(path.name for path in aside.iterdir()) == sorted([NAME, f"{NAME}.jsonl", f"{NAME}.log"])
        assert checkpoint_steps(aside / NAME / "checkpoints") == [4]
        assert not saved(opened()) and not (tmp_path / f"{NAME}.jsonl").exists()
    lived(opened(), 3, "finished")
    table, problems = load_runs(tmp_path)[:2]
    assert table["step"].max() == 3 and not [text for text in problems if "before" in text or "left out" in text]
    assert [run.name for run in Looker(tmp_path, everything=True).look()] == [NAME]
    assert load_runs(tmp_path / "before" / f"{NAME}.1").table["step"].max() == 5  # it can still be read


def test_checkpoints_on_a_disk_of_their_own_are_set_aside_there(opened, tmp_path):
    elsewhere = f"trainer.default_local_dir={tmp_path}/scratch/mine"
    lived(opened(elsewhere), 5, "interrupted", saved=(4,))
    assert launch._open_run(opened(elsewhere, "run.overwrite=true"))
    assert not saved(opened(elsewhere)) and checkpoint_steps(tmp_path / "scratch/mine.before.1") == [4]


def test_what_is_left_without_its_folder_is_set_aside_too(opened, tmp_path):
    write_atomic(tmp_path / f"{NAME}.jsonl", '{"step": 0}\n')  # a kill in the middle of a move
    assert launch._open_run(opened())
    assert (tmp_path / "before" / f"{NAME}.1" / f"{NAME}.jsonl").is_file()


def test_a_run_that_its_budget_or_its_epochs_ended_is_finished(opened, capsys):
    ends = ("trainer.total_training_steps=null", "trainer.total_epochs=1", "budget.generated_tokens=500")
    lived(opened(*ends), 6, "finished", saved=(6,))
    assert not launch._open_run(opened(*ends))
    assert "finished already" in capsys.readouterr().err
    assert launch._open_run(opened(*ends[:2], "budget.generated_tokens=900"))  # more is asked for: it goes on


def test_a_finished_run_whose_data_are_gone_is_finished_and_says_so(opened, tmp_path, capsys):
    train = tmp_path / "mine.parquet"
    shutil.copy(opened().data.test_files, train)
    config = opened(f"data.test_files={train}")
    lived(config, 5, "finished")
    record = json.loads((Path(config.run.dir) / "run.json").read_text())
    record |= {identity.KEY: identity.stands_on(config)}
    write_atomic(Path(config.run.dir) / "run.json", json.dumps(record))
    train.unlink()
    config.trainer.total_training_steps = 5
    write_atomic(Path(config.run.dir) / "config.yaml", launch._recorded(config))
    assert not launch._open_run(config)
    said = capsys.readouterr().err
    assert "finished already" in said and "mine.parquet" in said and "is nothing" in said


def test_more_steps_without_a_checkpoint_to_go_on_from_are_refused(opened):
    lived(opened("trainer.total_training_steps=5"), 5, "finished")
    assert not launch._open_run(opened("trainer.total_training_steps=4"))
    with pytest.raises(UserError, match="finished at step 5 and has no checkpoint"):
        launch._open_run(opened("trainer.total_training_steps=9"))


def test_fewer_steps_than_were_taken_are_refused(opened):
    lived(opened(), 7, "interrupted", saved=(7,))
    with pytest.raises(UserError, match=r"total_training_steps=5, but .* is at step 7 already"):
        launch._open_run(opened("trainer.total_training_steps=5"))
    assert launch._open_run(opened("trainer.total_training_steps=7"))


def test_the_command_that_starts_from_a_checkpoint_goes_on_when_given_again(opened, tmp_path):
    start = f"trainer.resume_from_path={tmp_path}/other/global_step_3"
    write_atomic(tmp_path / "other/global_step_3" / STATE, "")
    lived(opened(), 9, "finished", saved=(9,))
    config = opened(start)
    assert config.trainer.resume_mode == "resume_path" and launch._open_run(config)
    assert not saved(config) and (tmp_path / "before" / f"{NAME}.1").is_dir()  # its own steps are another beginning's
    lived(config, 4, "interrupted", saved=(4,))
    again = opened(start)
    assert launch._open_run(again)
    assert again.trainer.resume_mode == "auto" and saved(again) == [4]


def test_a_run_goes_back_to_a_checkpoint_of_its_own(opened, tmp_path):
    lived(opened(), 9, "interrupted", saved=(3, 6, 9))
    config = opened(f"trainer.resume_from_path={tmp_path}/{NAME}/checkpoints/global_step_3")
    assert launch._open_run(config)
    assert config.trainer.resume_mode == "auto" and saved(config) == [3]
    assert (tmp_path / f"{NAME}.jsonl").is_file() and (tmp_path / NAME / "samples/step_000001.parquet").is_file()
    assert checkpoint_steps(tmp_path / "before" / f"{NAME}.1" / NAME / "checkpoints") == [3, 6, 9]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["trainer.resume_from_path={0}/checkpoints"], "did you mean {0}/checkpoints/global_step_3"),
        (["trainer.resume_from_path={0}/checkpoints/global_step_8"], "is not a folder"),
        (["trainer.resume_from_path={0}/global_step_5"], "is not a whole checkpoint"),
        (["trainer.resume_from_path={0}/checkpoints/global_step_3", "trainer.total_training_steps=3"], "nothing to train"),
        (["trainer.resume_mode=disable", "trainer.resume_from_path={0}/checkpoints/global_step_3"], "exclude each other"),
        (["trainer.resume_mode=resume_path"], "is not a folder"),
    ],
)
def test_a_checkpoint_that_is_none_is_refused_in_one_sentence(opened, tmp_path, overrides, words):
    other = tmp_path / "other"
    write_atomic(other / "checkpoints/global_step_3" / STATE, "")
    (other / "global_step_5").mkdir()
    with pytest.raises(UserError) as refused:
        opened(*(text.format(other) for text in overrides))
    assert words.format(other) in str(refused.value) and "\n" not in str(refused.value)


def test_slashes_at_the_end_of_a_checkpoint_say_nothing(opened, tmp_path):
    write_atomic(tmp_path / "other/global_step_3" / STATE, "")
    config = opened(f"trainer.resume_from_path={tmp_path}/other/global_step_3//")
    assert config.trainer.resume_from_path == f"{tmp_path}/other/global_step_3"
    assert settle_resume(config) is None and check_resume(config) is None


def test_steps_that_would_not_come_are_refused_with_the_numbers(opened):
    config = opened("trainer.total_training_steps=33", "trainer.total_epochs=2", "data.train_batch_size=30")
    with pytest.raises(UserError, match=r"32 steps of 30 from 500 questions.*total_epochs=3, or .*total_training_steps=32"):
        check_epochs(config, 500)
    config.trainer.total_training_steps = 32
    check_epochs(config, 500)
    config.trainer.total_training_steps = None  # as many as there are
    check_epochs(config, 500)
    with pytest.raises(UserError, match="total_training_steps=1000 is more"):
        opened("trainer.total_training_steps=1000", "trainer.total_epochs=1")


def test_one_process_per_run(tmp_path):
    with run_folder.only_one(tmp_path, "run"):
        with pytest.raises(UserError, match="the run run is going on"), run_folder.only_one(tmp_path, "run"):
            pass
        assert (tmp_path / ".run.lock").exists()
    assert not (tmp_path / ".run.lock").exists()
