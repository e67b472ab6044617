"""The prepare scripts beyond local files: the Hub (and its absence), and the count of overlong prompts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from Verl.data import hub, prompts
from Verl.data.gsm8k import GSM8K
from Verl.data.hendrycks_math import MATH
from Verl.data.prepare import main
from Verl.data.schema import require_prepared
from Verl.reward import sources

NO_HUB = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}


@pytest.mark.parametrize("name", ["gsm8k", "MATH"])
@pytest.mark.parametrize("offline", [NO_HUB, {"HF_HUB_OFFLINE": "1"}], ids=["unreachable", "switched off"])
def test_without_the_hub_one_sentence_within_seconds(tmp_path, run_script, name, offline):
    start = time.perf_counter()
    done = run_script(name, "--out", tmp_path / "out", env={**offline, "HF_HOME": str(tmp_path / "cache")})
    assert time.perf_counter() - start < 15  # 1 to 2 s measured; left alone, `datasets` takes 24 s or more
    assert done.returncode == 2
    assert "cannot be loaded from the Hub" in done.stderr and "--source FOLDER" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_hub_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.2)

    given_up, ended = threading.Event(), threading.Event()

    def never(*_: object, **__: object) -> None:
        given_up.wait(60)
        ended.set()
        raise OSError("too late")

    monkeypatch.setattr(hub.urllib.request, "urlopen", never)
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    with monkeypatch.context() as inner:  # what is set below goes away with the test
        inner.setattr(os, "environ", dict(os.environ))
        hub.go_offline_unless_reachable("datasets/openai/gsm8k")
        assert not ended.is_set()  # it came back while the Hub was still silent
        given_up.set()
        assert os.environ["HF_HUB_OFFLINE"] == os.environ["HF_DATASETS_OFFLINE"] == "1"


def test_offline_holds_for_a_library_that_is_imported_already(tmp_path):
    """It reads the variable once; without our word it asks six times, with pauses, in half a minute."""
    code = (
        "import huggingface_hub.constants as constants\n"
        "from Verl.data.hub import go_offline_unless_reachable\n"
        "go_offline_unless_reachable('owner/model')\n"
        "import huggingface_hub\n"
        "print(constants.HF_HUB_OFFLINE, huggingface_hub.is_offline_mode())"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=root, timeout=60,
        env={**os.environ, **NO_HUB},
    )  # fmt: skip
    assert done.stdout.split() == ["True", "True"], done.stderr


def test_what_the_hub_gives_is_what_local_files_give(prepare, tmp_path, math_folder, monkeypatch):
    """`datasets.load_dataset` replaced by one that reads the same rows from files under the Hub's names."""
    import datasets

    files = {
        (sources.MATH, "train"): math_folder / "data" / "train-00000-of-00001.parquet",
        (sources.MATH, "test"): math_folder / "data" / "test-00000-of-00001.parquet",
        (sources.MATH_500, "test"): tmp_path / "MATH-500" / "test.jsonl",
    }

    def load_dataset(name, config, split):
        assert config is None
        path = files[name, split]
        rows = [json.loads(path.read_text())] if path.suffix == ".jsonl" else pq.read_table(path).to_pylist()
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(hub, "go_offline_unless_reachable", lambda _: None)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for extra in ([], ["--test", "full"]):
        local = prepare(MATH, tmp_path / "local", "--source", math_folder, "--validation", 2, *extra)
        assert prepare(MATH, tmp_path / "hub", "--validation", 2, *extra, "--out", tmp_path / "hub") == local


def test_a_bad_row_of_the_hub_is_named(tmp_path, monkeypatch, capsys):
    import datasets

    rows = [{"question": "One?", "answer": "#### 1"}, {"question": "Two?", "answer": "two"}]
    monkeypatch.setattr(hub, "go_offline_unless_reachable", lambda _: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, split: datasets.Dataset.from_list(rows))
    assert main(GSM8K, tmp_path / "out", []) == 1
    assert "openai/gsm8k (train split on the Hub): row 2, field 'answer'" in capsys.readouterr().err


@pytest.fixture
def tokenizer_folder(tmp_path) -> Path:
    """One token per word; the chat template adds two words before the prompt and one after it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    fast.chat_template = (
        "{% for m in messages %}turn {{ m.role }} {{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %} go{% endif %}"
    )
    fast.save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def test_overlong_prompts_are_counted_and_kept(prepare, tmp_path, write_jsonl, tokenizer_folder, capsys):
    long, short = "word " * 9 + "end?", "word " * 8 + "end?"  # 10 and 9 words
    write_jsonl(tmp_path / "train.jsonl", [{"question": f"{i} {long}", "answer": "#### 1"} for i in range(3)])
    write_jsonl(tmp_path / "test.jsonl", [{"question": q, "answer": "#### 1"} for q in (long, short)])
    limit = 10 + len(prompts.GSM8K_INSTRUCTION.split()) + 3 - 1  # one less than the long test prompt
    command = ["--source", tmp_path, "--validation", 0, "--tokenizer", tokenizer_folder, "--max-prompt-length", limit]
    got = prepare(GSM8K, tmp_path / "out", *command)
    assert {split: len(rows) for split, rows in got.items()} == {"train": 3, "test": 2}
    settings = require_prepared(tmp_path / "out")["settings"]["overlong"]
    assert settings == {"tokenizer": "tokenizer", "max_prompt_length": limit, "prompts": {"train": 3, "test": 1}}
    assert f"test: 1 prompts longer than {limit} tokens" in capsys.readouterr().out


def test_a_tokenizer_that_cannot_serve_is_reported(tmp_path, gsm8k_folder, tokenizer_folder, capsys):
    (tokenizer_folder / "chat_template.jinja").unlink()
    (tmp_path / "empty").mkdir()
    for folder, words in ((tokenizer_folder, "no chat template"), (tmp_path / "empty", "cannot be loaded")):
        command = ["--source", gsm8k_folder, "--validation", 2, "--tokenizer", folder, "--out", tmp_path / "out"]
        assert main(GSM8K, tmp_path, [str(one) for one in command]) == 1
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_scripts_need_no_heavy_import():
    """Local preparation must not pay for torch, transformers or datasets (seconds on a shared machine)."""
    code = (
        "import sys, Verl.data.gsm8k, Verl.data.hendrycks_math\n"
        "print([name for name in ('torch', 'transformers', 'datasets', 'verl') if name in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=root, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr
