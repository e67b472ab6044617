"""500 random settings, every kind of key with every odd value: each ends in a config that can be recorded, or in one sentence.

The keys and values are drawn anew from one seed, so that a failure can be repeated; BANDIT_FUZZ=<number> draws others.
"""

import json
import os
import random
from functools import cache

import pytest
from omegaconf import OmegaConf

from tests.runs.harness import _build_data
from Verl.errors import UserError
from Verl.trainer import machine_checks, overrides, run_config, settings

COUNT = 500
VALUES = (
    "0", "-1", "1", "1.5", "-0.0", "1e400", "1e-400", "9999999999999999999999", "0x10", "1_000", "inf", "-inf", "nan", "null",
    "true", "off", "auto", "abc", "''", "'a b'", "'\\n'", "ü", "~", "a=b", "1,2", "[]", "[0]", "[1,2]", "[null]", "[[1]]", "{}",
    "{a: 1}", "{a: ???}", "???", "${nope}", "${seed}", "${algorithm}", "'${oc.env:HOME}'", "${oc.env:NOPE}", "../../etc/passwd",
    "/etc/passwd", "'<script>'", "'$(touch x)'",
)  # fmt: skip
# Beside the config's own: keys that are none, Hydra's forms, and what issue threads showed to end badly.
KEYS = ("model", "data", "published", "nope", "a.b.c", "", "+seed", "++seed", "~seed", "data.", ".", "data@x", "hydra.run.dir",
        "--x", "run.name", "run.dir", "run.data", "run.arm", "data.train_files", "data.train_files.0", "seed")  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    _build_data(folder / "data")
    (folder / "model").mkdir()
    (folder / "model/config.json").write_text(json.dumps({"model_type": "qwen2"}))
    files = [("train", "train"), ("val", "validation"), ("test", "test")]
    return [
        *(f"data.{key}_files={folder}/data/{name}.parquet" for key, name in files), "data.train_batch_size=16",
        f"actor_rollout_ref.model.path={folder}/model", f"run.result_dir={folder}/result", "trainer.device=cpu",
    ]  # fmt: skip


def drawn() -> list[tuple[str, list[str]]]:
    """Every key of the config about once in two rounds; half of the settings with one of the special keys."""
    draw = random.Random(os.environ.get("BANDIT_FUZZ", "0"))
    keys = list(overrides.keys_of(settings.defaults("grpo", "cpu")))
    ours = [key for key in keys if not key.startswith(("critic.", "distillation.", "global_profiler."))]
    found = []
    for number in range(COUNT):
        pool = (KEYS, ours, keys)[number % 3]
        texts = [f"{draw.choice(pool)}={draw.choice(VALUES)}" for _ in range(draw.choice((1, 1, 2)))]
        found.append((draw.choice(("grpo", "bandit", "replay")), texts))
    return found


@pytest.mark.slow
def test_every_setting_ends_in_a_config_or_in_one_sentence(good, monkeypatch):
    # Of the contents of the data, which no setting changes.
    monkeypatch.setattr(machine_checks, "check_questions", lambda config: None)
    monkeypatch.setattr(machine_checks, "check_parquet", cache(machine_checks.check_parquet))
    refused, bad, resolved = 0, [], 0
    for algorithm, texts in drawn():
        try:
            config, missing = run_config.prepare(algorithm, good, texts)
            resolved += 1
            if resolved % 3 == 0 or "${" in str(texts):  # a thirtieth of a second each
                OmegaConf.to_container(config, resolve=True)
        except UserError as error:
            refused += 1
            if not str(error).strip() or "\n" in str(error):
                bad.append(f"main_ppo_{algorithm} {' '.join(texts)}: no one sentence: {error!r}")
        except Exception as error:
            bad.append(f"main_ppo_{algorithm} {' '.join(texts)}: {type(error).__name__}: {error}")
        else:
            place = config.run.dir
            if any("\n" in one for one in missing) or os.path.dirname(place) != config.run.result_dir or ".." in place:
                bad.append(f"main_ppo_{algorithm} {' '.join(texts)}: {place} {missing}")
    assert not bad, "\n".join(bad)
    assert COUNT * 0.3 < refused < COUNT  # some of both


@pytest.mark.parametrize("text", ["run.data=../../etc/passwd", "run.model=a/b", "run.arm=..", "data=../x", "run.name=x",
                                  "run.dir=/tmp/x", "seed=${nope}", "data.train_files=0", "seed=???",
                                  "data.train_batch_size=null", "algorithm=${seed}", "data.train_files=true"])  # fmt: skip
def test_values_that_ended_badly_are_refused(good, text):
    key = text.split("=")[0]
    with pytest.raises(UserError, match=key.replace(".", r"\.")) as caught:
        _, missing = run_config.prepare("grpo", good, [text])
        if missing:  # a file that is not here
            raise UserError(missing[0])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text, name", [("data=null", "grpo_0016_1_seed0"), ("model=null", "grpo_0016_1_seed0"),
                                        ("run.data=inf", "grpo_0016_1_inf_seed0"), ("run.model=nan", "grpo_0016_1_nan_seed0")])
def test_values_that_ended_badly_and_mean_something_are_taken(good, text, name):
    """null chooses nothing, and a name may look like a number."""
    config, missing = run_config.prepare("grpo", good, [text])
    assert not missing and config.run.name == name
