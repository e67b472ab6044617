"""What a run stands on is in run.json; a resume on anything else is refused, or recorded where the user says so."""

import json
import os
import shutil

import pytest
from omegaconf import OmegaConf

from tests.runs.harness import _build_data
from Verl.errors import UserError
from Verl.trainer import identity, launch
from Verl.trainer.run_log import RunLog


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A pair, and the resolved config of a run on it: composed once, since that is what takes the time."""
    from Verl.base_models.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("original")
    _build_data(folder / "data")
    build_tokenizer(64).save_pretrained(folder / "model")
    (folder / "model/config.json").write_text(json.dumps({"model_type": "qwen2"}))
    (folder / "model/model.safetensors").write_bytes(b"weights")
    (folder / "reward.py").write_text("def compute_score(*a, **k): return 0.0\n")
    files = [("train", "train"), ("val", "validation"), ("test", "test")]
    settings = [
        *(f"data.{key}_files={folder}/data/{name}.parquet" for key, name in files),
        f"actor_rollout_ref.model.path={folder}/model", f"run.result_dir={folder}/result", "trainer.device=cpu",
        f"reward.custom_reward_function.path={folder}/reward.py", "data.train_batch_size=16", "run.arm=some",
    ]  # fmt: skip
    config, missing = launch.prepare("grpo", settings, [])
    assert not missing
    return folder, OmegaConf.to_yaml(config)


@pytest.fixture
def pair(original, tmp_path, monkeypatch):
    """A copy of the pair, for one test."""
    for name in ("data", "model"):
        shutil.copytree(original[0] / name, tmp_path / name)
    shutil.copy(original[0] / "reward.py", tmp_path)
    (tmp_path / "config.yaml").write_text(original[1].replace(str(original[0]), str(tmp_path)))
    monkeypatch.setenv("BANDIT_THREADS", "1")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path


def run(pair, user=(), **settings):
    """The config of a run, as the launcher opens and records it."""
    config = OmegaConf.load(pair / "config.yaml")
    for key, value in settings.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    assert launch._open_run(config)
    launch._record(config, "grpo", RunLog(config.run.name, pair / "result", None), list(user))
    return config


def stopped_at(config, step):
    """As if the run had been stopped after its checkpoint of a step."""
    folder = os.path.join(config.trainer.default_local_dir, f"global_step_{step}")
    os.makedirs(folder)
    with open(os.path.join(folder, "bandit_state.json"), "w") as file:
        file.write("{}")


def recorded(pair, name="some_seed0"):
    return json.loads((pair / "result" / name / "run.json").read_text())


def under_its_old_date(path, content):
    """Other contents, of the same length, under the same time stamp."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _exchange_data(pair):
    shutil.copy(pair / "data/train.parquet", pair / "before.parquet")
    shutil.rmtree(pair / "data")
    _build_data(pair / "data")
    (pair / "data/manifest.json").unlink()
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pq.read_table(pair / "data/train.parquet").to_pylist()[::-1]
    pq.write_table(pa.Table.from_pylist(rows), pair / "data/train.parquet")


CHANGES = {
    "data.train_files/": _exchange_data,
    "model.weights": lambda pair: under_its_old_date(pair / "model/model.safetensors", b"WEIGHTS"),
    "model.config": lambda pair: (pair / "model/generation_config.json").write_text('{"eos_token_id": 5}'),
    "model.tokenizer": lambda pair: (pair / "model/added_tokens.json").write_text("{}"),
    "model.chat_template": lambda pair: (pair / "model/chat_template.jinja").write_text("{{ messages[0].content }}"),
    "reward_function": lambda pair: (pair / "reward.py").write_text("def compute_score(*a, **k): return 1.0\n"),
    "threads": lambda pair: os.environ.update(BANDIT_THREADS="2"),
    "processor": lambda pair: None,
    "version.torch": lambda pair: None,
    "code": lambda pair: None,
}


@pytest.fixture
def elsewhere(monkeypatch):
    """What only another machine or another checkout has."""

    def move(entry):
        if entry == "processor":
            monkeypatch.setattr(identity.provenance, "processor", lambda: "another")
        if entry.startswith("version."):
            real = identity.importlib.metadata.version
            monkeypatch.setattr(identity.importlib.metadata, "version", lambda name: "0" if name == "torch" else real(name))
        if entry == "code":
            monkeypatch.setattr(identity, "code", lambda: "0" * 64)

    return move


@pytest.mark.parametrize("entry", CHANGES)
def test_a_resume_on_something_else_is_refused(pair, elsewhere, entry, monkeypatch):
    monkeypatch.setenv("BANDIT_THREADS", "1")
    config = OmegaConf.load(pair / "config.yaml")
    log = RunLog(config.run.name, pair / "result", None)
    log.describe(**identity.describe(config))
    stopped_at(config, 4)
    identity.check_resume(config)  # nothing changed: it goes on
    CHANGES[entry](pair), elsewhere(entry)
    with pytest.raises(UserError) as error:
        identity.check_resume(config)
    sentence = str(error.value)
    assert entry in sentence and "run.overwrite=true" in sentence and "run.variant" in sentence and "\n" not in sentence
    config.run.resume_changed = True  # on the user's word, and in the record
    identity.check_resume(config)
    for _ in range(2):
        log.describe(**identity.describe(config))
        (change,) = recorded(pair)["changed"]
    assert change["from_step"] == 4 and [key for key in change["entries"] if key.startswith(entry)]
    config.run.resume_changed = False
    identity.check_resume(config)  # what it stands on now is what it goes on with


def test_on_a_gpu_threads_and_processor_are_recorded_only(pair, elsewhere, monkeypatch):
    config = OmegaConf.load(pair / "config.yaml")
    config.trainer.device = "cuda"
    RunLog(config.run.name, pair / "result", None).describe(**identity.describe(config))
    stopped_at(config, 4)
    monkeypatch.setenv("BANDIT_THREADS", "2"), elsewhere("processor")
    identity.check_resume(config)
    CHANGES["model.weights"](pair)
    with pytest.raises(UserError, match="model.weights"):
        identity.check_resume(config)


def test_the_launcher_asks_before_it_opens_a_run(pair):
    stopped_at(run(pair), 4)
    was = recorded(pair)
    CHANGES["reward_function"](pair)
    with pytest.raises(UserError, match="reward_function"):
        run(pair)
    assert recorded(pair) == was
    run(pair, run__resume_changed=True)
    assert recorded(pair)["changed"][0]["from_step"] == 4


def test_a_run_without_a_checkpoint_begins_anew(pair):
    run(pair)
    CHANGES["model.weights"](pair)
    run(pair)
    assert recorded(pair)["changed"] == []
    assert recorded(pair)["stands_on"] == identity.stands_on(run(pair))


def test_a_finished_run_says_that_it_stood_on_something_else(pair, capsys):
    config = run(pair, trainer__total_training_steps=4)
    stopped_at(config, 4)
    path = pair / "result/some_seed0/run.json"
    path.write_text(json.dumps({**recorded(pair), "status": "finished"}))
    assert not launch._open_run(config)
    assert "finished already;" in capsys.readouterr().err
    CHANGES["reward_function"](pair)
    assert not launch._open_run(config)
    assert "finished already, on something else: reward_function" in capsys.readouterr().err


def test_a_run_goes_on_with_as_many_gpus_as_it_began_on(pair):
    stopped_at(run(pair, trainer__n_gpus_per_node=4), 4)
    assert recorded(pair)["stands_on"]["gpus"] == 4
    with pytest.raises(UserError, match=r"gpus \(was 4, is 2\)"):
        run(pair, trainer__n_gpus_per_node=2)
    run(pair, trainer__n_gpus_per_node=2, trainer__nnodes=2)


def test_what_run_json_says(pair):
    user = ["actor_rollout_ref.actor.optim.lr=1e-3", "data.apply_chat_template_kwargs={a: 1}"]
    config = run(pair, user=user)
    run_json = recorded(pair, config.run.name)
    assert run_json["overrides"] == user
    assert {key.split("/")[0] for key in run_json["stands_on"]} == {
        "data.train_files", "data.val_files", "data.test_files", "model.weights", "model.config", "model.tokenizer",
        "model.chat_template", "reward_function", "device", "threads", "processor", "code",
        *(key for key in run_json["stands_on"] if key.startswith("version.")),
    }  # fmt: skip
    assert {"version.torch", "version.verl", "version.transformers"} <= set(run_json["stands_on"])
    assert f"data.train_files/{pair}/data/train.parquet" in run_json["stands_on"]


def test_a_model_of_the_hubs_cache(pair, monkeypatch):
    """The commit is recorded, and a commit that moved on is another model."""
    from huggingface_hub import constants

    cache = pair / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = []
    for commit in ("a" * 40, "b" * 40):
        snapshot = cache / "models--someone--mini/snapshots" / commit
        shutil.copytree(pair / "model", snapshot)
        (cache / "models--someone--mini/refs").mkdir(exist_ok=True)
        (cache / "models--someone--mini/refs/main").write_text(commit)
        config = run(pair, actor_rollout_ref__model__path="someone/mini", run__dir=f"{pair}/result/hub-{commit[0]}")
        found.append(identity.stands_on(config))
    assert [one["model.revision"] for one in found] == ["a" * 40, "b" * 40]
    assert found[0]["model.weights"] == found[1]["model.weights"]
