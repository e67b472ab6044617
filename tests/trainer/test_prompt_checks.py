"""Prompts that can't be built, are too long or leave no room: one sentence, before Ray and without torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs.harness import _build_data
from Verl.data.prompt_length import PromptEncoder
from Verl.errors import UserError
from Verl.trainer.launch import prepare
from Verl.trainer.prompt_checks import check_prompts

ROOT = Path(__file__).resolve().parents[2]
REFUSING = '{{ raise_exception("no roles") }}'


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    from Verl.base_models.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("pair")
    _build_data(folder / "data")
    build_tokenizer(64).save_pretrained(folder / "model")
    described = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "max_position_embeddings": 64}
    (folder / "model/config.json").write_text(json.dumps(described))
    (folder / "model/model.safetensors").touch()
    return folder


def settings(pair, *overrides):
    return [
        *(f"data.{key}_files={pair}/data/{name}.parquet" for key, name in
          [("train", "train"), ("val", "validation"), ("test", "test")]),
        f"actor_rollout_ref.model.path={pair}/model", f"run.result_dir={pair}/result", "trainer.device=cpu",
        "data.train_batch_size=16", "data.max_prompt_length=24", "data.max_response_length=12", *overrides,
    ]  # fmt: skip


def checked(pair, *overrides):
    config, missing = prepare("grpo", settings(pair, *overrides), [])
    assert not missing
    check_prompts(config)


def test_what_fits_passes(pair):
    checked(pair)
    checked(pair, "data.max_prompt_length=52")  # 52 + 12 = 64


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["data.max_prompt_length=2"], ["leaves out all 48 prompts of data.train_files", "shortest has 8 tokens"]),
        (["data.max_prompt_length=7", "data.filter_overlong_prompts=False"], ["filter_overlong_prompts=False", "the longest"]),
        (["data.max_prompt_length=53"], ["make 65 tokens", "holds 64", "lower them"]),
        (["data.train_max_samples=8"], ["train_max_samples=8", "train_batch_size=16"]),
        (["+actor_rollout_ref.model.override_config.max_position_embeddings=32"], ["make 36 tokens", "holds 32"]),
        ([f"actor_rollout_ref.model.custom_chat_template='{REFUSING}'"], ["can't write prompt 1: no roles"]),
    ],
)  # fmt: skip
def test_one_sentence(pair, overrides, words):
    with pytest.raises(UserError) as error:
        checked(pair, *overrides)
    sentence = str(error.value)
    assert all(word in sentence for word in words), sentence
    assert "\n" not in sentence and len(sentence) < 500


def test_fewer_left_than_a_batch(pair, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pq.read_table(pair / "data/train.parquet").to_pylist()
    for row in rows[15:]:
        row["prompt"][0]["content"] += "1+1+1+1+1+1+1+1+1="
        row["extra_info"]["question"] = row["prompt"][0]["content"]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    with pytest.raises(UserError, match="train_batch_size=16 is larger than the 15 training questions.*max_prompt_length=12"):
        checked(pair, f"data.train_files={tmp_path}/train.parquet", "data.max_prompt_length=12")
    checked(pair, f"data.train_files={tmp_path}/train.parquet", "data.max_prompt_length=12", "data.train_batch_size=15")


def test_a_model_without_a_chat_template(pair, tmp_path):
    import shutil

    shutil.copytree(pair / "model", tmp_path / "model")
    (tmp_path / "model/chat_template.jinja").unlink()
    model = f"actor_rollout_ref.model.path={tmp_path}/model"
    with pytest.raises(UserError, match="has no chat template.*data.chat_template=<file>.*custom_chat_template"):
        checked(pair, model)
    checked(pair, model, "actor_rollout_ref.model.custom_chat_template='{{ messages[0].content }}'")
    (tmp_path / "model/tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="tokenizer"):
        checked(pair, model, "actor_rollout_ref.model.custom_chat_template='{{ messages[0].content }}'")


def test_lengths_are_those_of_the_tokenizer_itself(pair):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(pair / "model")
    prompts = [
        [{"role": "user", "content": text}] for text in ("1+2=", "", "17 + 25 = ?", "abc", "<|im_end|>9", "\N{SNOWMAN} 3")
    ] + [[{"role": "system", "content": "12"}, {"role": "user", "content": "3+4="}]]
    expected = [len(tokenizer.apply_chat_template(one, add_generation_prompt=True, return_dict=False)) for one in prompts]
    assert PromptEncoder(pair / "model").lengths(prompts) == expected


def test_neither_torch_nor_ray_is_imported(pair):
    probe = (
        "import sys; from Verl.trainer.launch import main\n"
        "try: main('grpo', sys.argv[1:])\n"
        "finally: assert 'torch' not in sys.modules and 'ray' not in sys.modules, 'heavy imports'"
    )
    command = [sys.executable, "-c", probe, *settings(pair, "data.max_prompt_length=2")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.startswith("error: data.max_prompt_length=2 leaves out all"), done.stderr
    assert done.stderr.count("\n") == 1 and not (pair / "result").exists()
