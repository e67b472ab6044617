"""published=true: what it sets, what wins over it, where it is refused, and what it says at the start."""

import pandas as pd
import pytest
from omegaconf import OmegaConf, open_dict

from Verl.data.arithmetic import prepare as draw
from Verl.errors import UserError
from Verl.reward.sources import CHAIN_SUM, GSM8K, MATH, MATH_500
from Verl.study import shipped
from Verl.trainer import published, settings
from Verl.trainer.machine_checks import lacking

SCRIPT = "run_grpo_0032_1_smollm135m_gsm.sh"  # a script whose model sets an evaluation of its own


def texts(expanded):
    return [text for _, part in expanded for text in part]


def values(expanded):
    """key: the value that counts, which is the last of several."""
    return dict(text.lstrip("+").split("=", 1) for text in texts(expanded))


def test_without_the_key_nothing_changes():
    scripted, user = ["trainer.test_freq=3", "data.train_files=a"], ["seed=1"]
    assert texts(published.expand(scripted, user)) == [*scripted, *user]
    switched = texts(published.expand([*scripted, "published=true"], ["published=false"]))
    assert switched[2:] == ["published=true", "published=false"]
    assert published.lines(OmegaConf.create({"published": False})) == []


@pytest.mark.parametrize("user", [["published=true", "evaluation.val_freq=7"], ["evaluation.val_freq=7", "published=true"]])
def test_a_script_gives_way_and_the_user_wins_in_whatever_order(user):
    found = values(published.expand(["trainer.test_freq=3", "evaluation.val_freq=3"], user))
    assert found["trainer.test_freq"] == "100" and found["evaluation.val_freq"] == "7"
    assert found["evaluation.train_questions"] == "-1" and found["data.seed"] == "1" and found["published"] == "true"


def test_in_an_arms_settings_what_stands_behind_the_key_wins():
    scripted = ["evaluation.val_freq=3", "published=True", "evaluation.val_questions=5"]
    found = values(published.expand(scripted, []))
    assert found["evaluation.val_freq"] == "100" and found["evaluation.val_questions"] == "5"


def test_the_validation_split_is_trained_on_unless_the_user_has_data_of_his_own():
    files = {f"data.{key}_files": f"d/{name}.parquet" for key, name in
             (("train", "train"), ("val", "validation"), ("test", "test"))}  # fmt: skip
    found = values(published.expand([], ["published=true"], files))
    assert found["data.train_files"] == "[d/train.parquet,d/validation.parquet]" and found["data.val_files"] == "d/test.parquet"
    found = values(published.expand([], ["published=true", "data.train_files=mine.parquet"], files))
    assert found["data.train_files"] == "mine.parquet" and "data.val_files" not in found


def test_the_config_has_it_and_the_name_says_it():
    plain, checked = shipped.prepare(SCRIPT), shipped.prepare(SCRIPT, ["published=true", "data.max_response_length=64"])
    run = checked.config
    assert "published" in checked.name and checked.name != plain.name and checked.hash != plain.hash
    assert checked.flat["published"] is True and plain.flat["published"] is False
    set_here = {key: OmegaConf.select(run, key) for key in published.SETTINGS}
    assert set_here == published.SETTINGS | {"data.max_response_length": 64}
    assert list(run.data.train_files) == [plain.config.data.train_files, plain.config.data.val_files]
    assert run.data.val_files == run.data.test_files == plain.config.data.test_files
    before = {key: OmegaConf.select(plain.config, key) for key in published.SETTINGS}
    assert {key for key, value in before.items() if value != published.SETTINGS[key]} >= {
        "evaluation.train_questions", "evaluation.val_questions", "evaluation.val_freq", "trainer.test_freq", "data.seed",
    }  # fmt: skip


@pytest.fixture
def config(tmp_path):
    def make(train, test, *user):
        for name, source in (("train", train), ("test", test)):
            pd.DataFrame({"data_source": [source] * 2}).to_parquet(tmp_path / f"{name}.parquet")
        made = shipped.prepare(SCRIPT, ["published=true", *user]).config
        with open_dict(made):
            made.data.train_files = [str(tmp_path / "train.parquet")]
            made.data.val_files = made.data.test_files = str(tmp_path / "test.parquet")
        return made

    return make


def test_it_is_refused_where_it_means_nothing(config):
    with pytest.raises(UserError, match=r"published=true.*GSM8K and MATH.*reasoning_gym/chain_sum.*leave it out"):
        published.check_published(config(CHAIN_SUM, CHAIN_SUM))
    for train, test in ((GSM8K, GSM8K), (MATH, MATH), (MATH, MATH_500)):
        published.check_published(config(train, test))


def test_what_stays_different_is_said_once(config):
    (only,) = published.lines(config(GSM8K, GSM8K))
    assert "micro batch of 4" in only and "1e-6" in only and "MATH" not in only and "docs/published.md" in only
    (first, second) = published.lines(config(MATH, MATH_500, "evaluation.val_freq=7", "reward.rule=flexible"))
    assert "MATH-500" in first and "--test full" in first
    assert "evaluation.val_freq=7" in second and "reward.rule=flexible" in second and "test_freq" not in second
    assert "--test full" not in published.lines(config(MATH, MATH))[0]


def test_no_aggregation_of_verls_is_the_packages():
    """Token mean of each micro batch of 4, then averaged, against what verl 0.9.1 does with a whole batch of 12."""
    import torch
    from verl.trainer.ppo.core_algos import agg_loss

    torch.manual_seed(0)
    loss_ST, length_S = torch.rand(12, 9), torch.randint(1, 10, (12,))
    mask_ST = (torch.arange(9) < length_S[:, None]).float()
    packages = torch.stack([loss.mul(on).sum() / on.sum() for loss, on in zip(loss_ST.split(4), mask_ST.split(4))]).mean()

    def verls(mode, micro):
        whole = {"batch_num_tokens": int(mask_ST.sum()), "global_batch_size": 12}
        parts = zip(loss_ST.split(micro), mask_ST.split(micro))
        return sum(agg_loss(loss, on, mode, **whole) for loss, on in parts)

    for mode in ("token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"):
        assert torch.allclose(verls(mode, 4), verls(mode, 12))  # micro batches do not matter there
        assert not torch.isclose(verls(mode, 4), packages, rtol=1e-3), mode
    assert torch.isclose(verls("token-mean", 4), packages, rtol=0.2)


def test_a_script_s_own_data_are_refused_for_what_they_are(tmp_path):
    """Train and validation questions together repeat their numbers there: that must not be the reason given."""
    draw(tmp_path, sizes={"train": 64, "validation": 16, "test": 16})
    algorithm, scripted, _ = shipped.print_args("run_grpo_0032_8_tiny_arith.sh")
    splits = {"train_files": "train", "val_files": "validation", "test_files": "test"}
    scripted += [f"data.{key}={tmp_path}/{split}.parquet" for key, split in splits.items()]
    config = settings.compose(algorithm, scripted, ["published=true"])
    with pytest.raises(UserError, match=r"published=true.*GSM8K and MATH"):
        lacking(config)
