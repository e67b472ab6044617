"""`published=true`: everything of the published package's protocol that settings can bring back (docs/published.md).

The key stands for the settings below, at the place where it is written: a script's own settings before it give way, a
value that a user types (or that stands behind it in an arm's settings) wins, and is said at the start. What no setting
brings back is `left_different`, said at the start too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from Verl.errors import UserError
from Verl.reward.sources import GSM8K, MATH, MATH_500
from Verl.trainer.overrides import key_of
from Verl.trainer.rule_checks import training_sources

# The protocol of the package (arXiv 2601.22532), beside the arm and its model.
SETTINGS: dict[str, object] = {
    "data.seed": 1,  # one order of the questions, whatever the seed
    "data.max_prompt_length": 512,
    "data.max_response_length": 1024,
    "evaluation.train_questions": -1,  # Pass@1 over all training questions
    "evaluation.val_questions": 0,  # there is no validation split
    "evaluation.test_questions": -1,
    "evaluation.final_samples": 1,
    "evaluation.val_freq": 100,
    "trainer.test_freq": 100,
    "trainer.val_before_train": True,
    "actor_rollout_ref.rollout.temperature": 1.0,
    "actor_rollout_ref.rollout.val_kwargs.n": 1,
    "actor_rollout_ref.rollout.val_kwargs.temperature": 1.0,
    "actor_rollout_ref.actor.optim.lr": 1e-6,
    "actor_rollout_ref.actor.optim.weight_decay": 0.01,
    "actor_rollout_ref.actor.optim.clip_grad": 1.0,
    "actor_rollout_ref.actor.use_kl_loss": True,
    "actor_rollout_ref.actor.kl_loss_coef": 0.001,
    "actor_rollout_ref.actor.kl_loss_type": "low_var_kl",
    "actor_rollout_ref.actor.entropy_coeff": 0,
    "actor_rollout_ref.actor.loss_agg_mode": "token-mean",  # nearest to the package's; see left_different
    "reward.rule": "strict",
}
_FILES = ("data.train_files", "data.val_files", "data.test_files")


SCRIPT, KEY, TYPED = "the script", "published=true (Verl/trainer/published.py)", "typed"


def _asks(text: str) -> bool:
    return text.lstrip("+").replace(" ", "").lower() == "published=true"


def expand(
    scripted: Sequence[str], user: Sequence[str], grouped: Mapping[str, Any] = MappingProxyType({})
) -> list[tuple[str, list[str]]]:
    """Who sets what, in order: (whose they are, key=value texts), with what `published=true` stands for put in.

    Args:
        scripted: key=value texts of the script, in which an arm's own settings come last.
        user: what was typed; wins over what the key stands for, wherever the key stands in it.
        grouped: keys and values that the model and the data set have set before.
    """
    switches = [text for text in (*scripted, *user) if key_of(text) == "published"]
    if not switches or not _asks(switches[-1]):
        return [(SCRIPT, list(scripted)), (TYPED, list(user))]
    place = next((i for i, text in enumerate(scripted) if key_of(text) == "published"), len(scripted))
    settings = [f"{key}={value}" for key, value in SETTINGS.items()]
    if not set(_FILES) & {key_of(text) for text in user}:
        settings += _files({**grouped, **{key_of(text): text.partition("=")[2] for text in scripted}})
    return [(SCRIPT, list(scripted[:place])), (KEY, settings), (SCRIPT, list(scripted[place:])), (TYPED, list(user))]


def _files(known: Mapping[str, Any]) -> list[str]:
    """No validation split: its questions are trained on, and what verl asks for as validation files is the test set."""
    if not set(_FILES) <= known.keys():
        return []
    train, validation, test = (known[key] for key in _FILES)
    together = ",".join(",".join(one) if isinstance(one, list) else one.strip("[] ") for one in (train, validation))
    test = f"[{','.join(test)}]" if isinstance(test, list) else test
    return [f"data.train_files=[{together}]", f"data.val_files={test}"]


def check_published(config: DictConfig) -> None:
    """The protocol is that of two data sets.

    Raises:
        UserError: `published=true` on other training data.
    """
    if not config.published:
        return
    others = training_sources(config) - {GSM8K, MATH, MATH_500}
    if others:
        raise UserError(
            f"published=true is the package's protocol for GSM8K and MATH, and the training data are "
            f"{', '.join(sorted(others))}: leave it out, or give data.train_files of one of the two"
        )


def own_values(config: DictConfig) -> list[str]:
    """What was set beside the key and is therefore not as published, as key=value texts."""
    found = [(key, OmegaConf.select(config, key), value) for key, value in SETTINGS.items()]
    values = [f"{key}={mine}" for key, mine, value in found if mine != value]
    function = config.reward.custom_reward_function.path
    values += [f"reward.custom_reward_function.path={function}"] if function else []
    if config.data.val_files != config.data.test_files:
        values.append(f"data.val_files={config.data.val_files} (not the test set: are its questions trained on?)")
    return values


def left_different(config: DictConfig) -> list[str]:
    """What differs from the package whatever is set, the part that concerns this run."""
    found = [
        "the loss is the token mean over the whole batch (verl 0.9.1), not over each micro batch of 4",
        "responses are sampled by seed, where the package set none",
    ]
    sources = training_sources(config)
    if sources & {MATH, MATH_500}:
        found.append("10 problems of MATH are left out of train: copies, test problems, empty answers")
    tests = training_sources(config, "test_files")
    if MATH_500 in tests:
        found.append("the test set is MATH-500 (Dataset/MATH/prepare.py --test full writes the 5,000 problems)")
    if config.actor_rollout_ref.rollout.n == 1 and config.algorithm.adv_estimator == "grpo":
        found.append("A = R, not R / (1 + 1e-6), with one response per query")
    return found


def lines(config: DictConfig) -> list[str]:
    """What the console says at the start of a run; nothing without the key."""
    if not config.published:
        return []
    said = [f"published=true: not as published all the same (docs/published.md): {'; '.join(left_different(config))}"]
    if values := own_values(config):
        said.append(f"published=true: not as published, because set: {'; '.join(values)}")
    return said
