"""Models that can't be trained end in one sentence; a chat template of the user's; end and padding tokens."""

import json
import shutil

import pytest

from tests.runs.harness import _build_data
from Verl.data.prompt_length import PromptEncoder
from Verl.errors import UserError
from Verl.evaluation.models import find_model, load_tokenizer
from Verl.trainer.identity import stands_on
from Verl.trainer.launch import prepare
from Verl.trainer.prompt_checks import check_prompts, notes

CONFIG = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "max_position_embeddings": 64, "vocab_size": 64}
TEMPLATE = "{% for one in messages %}<q>{{ one.content }}{% endfor %}"
TEXT = "actor_rollout_ref.model.custom_chat_template"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    from Verl.base_models.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("pair")
    _build_data(folder / "data")
    build_tokenizer(64).save_pretrained(folder / "model")
    (folder / "model/config.json").write_text(json.dumps(CONFIG))
    (folder / "model/model.safetensors").touch()
    return folder


@pytest.fixture
def model(pair, tmp_path):
    """A model's folder, and how to change its files: None removes one, a dictionary is laid over it."""
    folder = tmp_path / "model"
    shutil.copytree(pair / "model", folder)

    def change(**files):
        for name, more in files.items():
            path = folder / f"{name}.json" if not name.endswith("jinja") else folder / "chat_template.jinja"
            if more is None:
                path.unlink()
            else:
                before = json.loads(path.read_text()) if path.is_file() else {}
                path.write_text(json.dumps({k: v for k, v in {**before, **more}.items() if v is not None}))
        return folder

    return change


def checked(pair, folder, *overrides):
    settings = [
        *(f"data.{key}_files={pair}/data/{name}.parquet" for key, name in
          [("train", "train"), ("val", "validation"), ("test", "test")]),
        f"actor_rollout_ref.model.path={folder}", f"run.result_dir={pair}/result", "trainer.device=cpu",
        "data.train_batch_size=16", "data.max_prompt_length=24", "data.max_response_length=12",
    ]  # fmt: skip
    config, missing = prepare("grpo", settings, list(overrides))
    assert not missing
    check_prompts(config)
    return config


@pytest.mark.parametrize("described, said", [
    ({"is_encoder_decoder": True, "model_type": "t5"}, "is an encoder-decoder (t5)"),
    ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, "is a BertForMaskedLM, which writes no text"),
    ({"architectures": ["Qwen2ForSequenceClassification"]}, "writes no text"),
    ({"architectures": None}, "names 0 architectures"),
    ({"model_type": "qwen77"}, "model_type=qwen77 is unknown to the installed transformers"),
    ({"model_type": "mine", "auto_map": {"AutoConfig": "a.B"}}, "brings code of its own"),
    ({"quantization_config": {"quant_method": "gptq"}}, "quantised weights (gptq)"),
    ({"vocab_size": 20}, "has embeddings for 20 tokens"),
])  # fmt: skip
def test_a_model_that_can_not_be_trained_is_one_sentence(pair, model, described, said):
    with pytest.raises(UserError) as refusal:
        checked(pair, model(config=described))
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_folder_that_is_not_whole_is_one_sentence(pair, model):
    folder = model(config={})
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="has no weights"):
        checked(pair, folder)
    (folder / "model.safetensors").touch()
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="no tokenizer that can be loaded"):
        checked(pair, folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json can't be read"):
        checked(pair, folder)


def test_end_and_padding_tokens_may_be_missing_where_others_stand_in(pair, model):
    pad = json.loads((pair / "model/tokenizer_config.json").read_text())["pad_token"]
    checked(pair, model(tokenizer_config={"pad_token": None}))  # verl pads with the end token
    no_end = {"eos_token": None, "pad_token": pad, "tokenizer_class": "PreTrainedTokenizerFast"}
    with pytest.raises(UserError, match="has no end token"):
        checked(pair, model(tokenizer_config=no_end))
    checked(pair, model(tokenizer_config=no_end, generation_config={"eos_token_id": [1, 5]}))
    with pytest.raises(UserError, match="names neither pad_token nor eos_token"):
        checked(pair, model(tokenizer_config={**no_end, "pad_token": None}, generation_config={"eos_token_id": [1, 5]}))


def test_a_template_of_the_users_is_what_prompts_run_and_evaluation_have(pair, model, tmp_path):
    folder, file = model(config={}), tmp_path / "mine.jinja"
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match=r"data.chat_template=<file>"):
        checked(pair, folder)
    file.write_text(TEMPLATE)
    config = checked(pair, folder, f"data.chat_template={file}")
    assert config.actor_rollout_ref.model.custom_chat_template == TEMPLATE
    assert "chat_template-mine.jinja" in config.run.name
    before = stands_on(config)["model.chat_template"]
    file.write_text(TEMPLATE + "!")
    assert stands_on(checked(pair, folder, f"data.chat_template={file}"))["model.chat_template"] != before
    source = find_model(str(folder))
    assert load_tokenizer(source, TEMPLATE).chat_template == TEMPLATE
    with pytest.raises(UserError, match="--chat-template"):
        load_tokenizer(source)


@pytest.mark.parametrize("content, more, said", [
    (None, (), "does not exist: give a file with a Jinja chat template"),
    ("  \n", (), "is empty"),
    ("{{ messages", (), "can't write prompt 1"),
    ("no message at all", (), "it leaves the messages out"),
    ("${x}", (), "reads as a reference"),
    (TEMPLATE, (f"{TEXT}='x'",), "both give a template"),
    (b"\xff\xfe", (), "is not UTF-8 text"),
])  # fmt: skip
def test_a_template_that_is_none_is_one_sentence(pair, tmp_path, content, more, said):
    file = tmp_path / "mine.jinja"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as refusal:
        checked(pair, pair / "model", f"data.chat_template={file}", *more)
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_turn_that_ends_in_another_token_than_a_response_is_noted(pair, model, tmp_path):
    folder, file = model(config={}), tmp_path / "mine.jinja"
    tokens = PromptEncoder(folder).special_tokens()
    assert not notes(checked(pair, folder))
    other = next(text for name, text in tokens.items() if name != "eos_token")
    file.write_text("{% for one in messages %}{{ one.content }}" + other + "{% endfor %}")
    [note] = notes(checked(pair, folder, f"data.chat_template={file}"))
    assert other in note and "eos_token_id" in note
    model(generation_config={"eos_token_id": [*range(8)]})
    assert not notes(checked(pair, folder, f"data.chat_template={file}"))
