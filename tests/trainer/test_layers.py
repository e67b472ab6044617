"""Which of two settings wins, what a model's or a data set's file is, and how to see where a value comes from."""

import pytest
from omegaconf import OmegaConf

from Verl.errors import UserError
from Verl.study import shipped
from Verl.trainer import settings
from Verl.trainer.where import where

LR = "actor_rollout_ref.actor.optim.lr"
TINY = ["model=tiny", "data=arith"]


def composed(*scripted, user=(), algorithm="grpo"):
    return settings.compose(algorithm, scripted, user)


def value(key, *scripted, **more):
    return OmegaConf.select(composed(*scripted, **more), key)


def test_each_layer_wins_over_those_before():
    verl, base = settings.verls_defaults(), settings.defaults("grpo", "cpu")
    assert verl.trainer.total_epochs == 30 and base.trainer.total_epochs == 100  # verl's, ours
    assert value("trainer.total_epochs", algorithm="replay") == 1000  # ours, of the entry point
    assert base.actor_rollout_ref.actor.optim.lr == 1e-6 and value(LR, "model=tiny") == 1e-4  # a model
    assert value(LR, "model=tiny", f"{LR}=0.1") == 0.1  # the script
    assert value(LR, f"{LR}=0.1", user=["published=true"]) == 1e-6  # typed, by way of published
    assert value(LR, f"{LR}=0.1", user=[f"{LR}=0.2", "published=true"]) == 0.2  # typed


def test_a_data_set_s_lengths_win_over_a_model_s():
    assert value("data.max_response_length", "model=smollm135m", "data=gsm") == 192
    assert value("data.max_response_length", "model=smollm135m", "data=arith") == 32
    assert value("data.max_response_length", "model=qwen0.5b", "data=gsm") == 1024


def test_a_large_batch_leaves_vllm_a_larger_share():
    key = "actor_rollout_ref.rollout.gpu_memory_utilization"
    shares = [value(key, "model=qwen0.5b", f"data.train_batch_size={size}") for size in (256, 511, 512, 2048)]
    assert shares == [0.6, 0.6, 0.8, 0.8]
    assert value(key, "model=qwen0.5b", "data.train_batch_size=2048", user=[f"{key}=0.7"]) == 0.7


@pytest.mark.parametrize("scripted, typed, rate", [
    (["model=tiny"], ["actor_rollout_ref.actor.optim.lr=3x"], 3e-4),  # of the model's file
    (["model=qwen0.5b"], ["actor_rollout_ref.actor.optim.lr=0.5x"], 5e-7),  # of base.yaml
    (["model=tiny", "actor_rollout_ref.actor.optim.lr=0.1"], ["actor_rollout_ref.actor.optim.lr=3x"], 0.3),  # of the script
    (["model=tiny", "actor_rollout_ref.actor.optim.lr=3x"], ["model=qwen0.5b"], 3e-6),  # whichever model is chosen
])  # fmt: skip
def test_a_multiple_is_of_what_the_layers_below_say(scripted, typed, rate):
    assert settings.compose("grpo", scripted, typed).actor_rollout_ref.actor.optim.lr == rate


def test_a_share_of_another_key():
    config = settings.compose("grpo", ["actor_rollout_ref.rollout.max_num_seqs=${share:0.2,data.max_prompt_length}"])
    assert config.actor_rollout_ref.rollout.max_num_seqs == 102  # of 512


def test_what_is_typed_chooses_another_model_and_data_set_and_names_the_run():
    one = shipped.prepare("run_grpo_0032_8_tiny_arith.sh", ["model=smollm135m", "data=gsm", "seed=2"])
    assert one.name == "grpo_0032_8_smollm135m_gsm_seed2"
    assert one.config.data.max_response_length == 192 and one.config.data.train_files.startswith("Dataset/gsm8k")
    assert one.flat == shipped.prepare("run_grpo_0032_8_smollm135m_gsm.sh").flat


def test_hydra_itself_composes_the_same():
    """By the names that tell our groups from verl's of the same name."""
    ours = composed("model=smollm135m", "data=arith")
    search = f"hydra.searchpath=[file://{settings._verl_config_dir()}]"
    choices = ["+model@_global_=smollm135m", "+data@_global_=arith"]
    hydras = settings._hydra(settings.CONFIG_DIR, "grpo", [search, "device=cpu", *choices])
    OmegaConf.set_struct(hydras, False)
    del hydras["about"]  # not a setting
    hydras.run.model, hydras.run.data, hydras.trainer.device = "smollm135m", "arith", "cpu"
    assert OmegaConf.to_container(hydras, resolve=True) == OmegaConf.to_container(ours, resolve=True)


@pytest.fixture
def config_dir(tmp_path, monkeypatch):
    for kind in settings.GROUPS:
        (tmp_path / "Verl/trainer/config" / kind).mkdir(parents=True)
    settings.defaults("grpo", "cpu")  # which have another folder
    monkeypatch.setattr(settings, "CONFIG_DIR", tmp_path / "Verl/trainer/config")
    yield tmp_path / "Verl/trainer/config"
    settings._file.cache_clear()


def test_a_file_of_one_s_own_is_a_model(config_dir):
    (config_dir / "model/mine.yaml").write_text(
        "about: {title: mine}\nactor_rollout_ref: {model: {path: /models/mine, override_config: {attention_dropout: 0.1}}}\n"
    )
    config = composed("model=mine", user=["trainer.device=cpu"])
    assert config.run.model == "mine" and config.actor_rollout_ref.model.path == "/models/mine"
    assert config.actor_rollout_ref.model.override_config == {"attention_dropout": 0.1, "attn_implementation": "sdpa"}
    assert "about" not in config and settings.about("model", "mine") == {"title": "mine"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: {max_prompt_lenth: 3}", "data/mine.yaml: there is no setting data.max_prompt_lenth; did you mean"),
        ("data: {max_prompt_length: long}", "data/mine.yaml: data.max_prompt_length=long has the wrong type"),
        ("data: [unfinished", "data/mine.yaml can't be read"),
        ("max_prompt_length", "data/mine.yaml: there is no setting max_prompt_length"),
    ],
)
def test_a_slip_in_such_a_file_is_one_sentence(config_dir, text, said):
    (config_dir / "data/mine.yaml").write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        composed("data=mine", user=["trainer.device=cpu"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("model=tinny", r"model=tinny is unknown: choose llama1b, .*tiny"),
        ("data=arit", r"data=arit is unknown: choose arith, gsm, .*math"),
        ("data={train_batch_size: 3}", "is unknown: choose arith"),
        ("model=hf_model", "model=hf_model is unknown"),  # which verl's own group of this name has
        ("data.train_batch_size=8,16", "names several values"),
        ("trainer.device=tpu", "choose auto, cpu or cuda"),
        ("data", "write key=value"),
    ],
)
def test_a_slip_in_a_choice_is_one_sentence(typed, said):
    with pytest.raises(UserError, match=said) as caught:
        composed(*TINY, user=[typed])
    assert "\n" not in str(caught.value)


def test_where_a_value_comes_from():
    said = where("grpo", [*TINY, "run.variant=x"], [f"{LR}=2e-3"], LR)
    assert said[0] == f"{LR} = 0.002"
    assert [line.split()[-2:] for line in said[2:]] == [
        ["Verl/trainer/config/base.yaml", "1e-06"], ["Verl/trainer/config/model/tiny.yaml", "0.0001"], ["typed", "0.002"],
    ]  # fmt: skip
    assert where("grpo", [*TINY, "run.variant=x"], [], "run.variant")[-1].split() == ["the", "script", "x"]
    assert "device/cpu.yaml" in where("grpo", TINY, [], "actor_rollout_ref.rollout.name")[-1]
    with pytest.raises(UserError, match="there is no setting data.train_batch; did you mean data.train_batch_size"):
        where("grpo", TINY, [], "data.train_batch")
