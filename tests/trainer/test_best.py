"""The best step on validation: which it is, which checkpoints stay for it, and what is refused."""

import io
import json
from types import SimpleNamespace

import pytest

from Verl.errors import UserError
from Verl.study import shipped
from Verl.trainer.best import VALIDATION, best_step, best_trained, evaluations_since
from Verl.trainer.console import Console
from Verl.trainer.ppo.checkpoints import Checkpoints
from Verl.trainer.run_log import RunLog

SCRIPT = "run_grpo_0032_8_tiny_arith.sh"


def test_the_best_is_the_first_of_the_highest_and_the_start_counts_for_patience_alone():
    values = {0: 0.5, 10: 0.4, 20: 0.45, 30: 0.45, 40: float("nan")}
    assert (best_step(values), best_trained(values), evaluations_since(values)) == (0, 20, 3)
    assert (best_step({}), best_trained({0: 1.0}), evaluations_since({})) == (None, None, 0)


@pytest.mark.parametrize("keep, left", [(False, [4, 5]), (True, [2, 4, 5])])
def test_the_best_checkpoint_stays_beside_the_newest(tmp_path, keep, left):
    settings = SimpleNamespace(default_local_dir=str(tmp_path), max_actor_ckpt_to_keep=2, keep_best=keep)
    log = RunLog("run_seed0", tmp_path, Console(io.StringIO()))
    for step, score in ((0, 0.9), (2, 0.6), (4, 0.5)):
        log.log({VALIDATION: score}, step)
    trainer = SimpleNamespace(
        config=SimpleNamespace(trainer=settings), run_log=log, global_steps=5, ledger=SimpleNamespace(state_dict=dict),
        algorithm_state=dict,
    )  # fmt: skip
    for step in (1, 2, 3, 4):
        (tmp_path / f"global_step_{step}").mkdir()
        (tmp_path / f"global_step_{step}/bandit_state.json").write_text("{}")
    checkpoints = Checkpoints(trainer)
    checkpoints.save(lambda: (tmp_path / ".partial/global_step_5").mkdir(parents=True))
    checkpoints.commit()
    assert checkpoints.steps() == left
    assert json.loads((tmp_path / "global_step_5/bandit_state.json").read_text())["step"] == 5


@pytest.mark.usefixtures("tiny_pair")
@pytest.mark.parametrize("settings, said", [
    ("trainer.keep_best=true evaluation.val_questions=0", "evaluation.val_questions=0 evaluates none"),
    ("budget.patience=2 evaluation.val_freq=-1", "evaluation.val_freq=-1 evaluates none"),
    ("budget.patience=10", "patience=10 changes nothing: 10 evaluations on validation take 100 steps"),
    ("budget.patience=0", "budget.patience=0 is too small"),
    ("budget.patience=1.5", "must be a whole number"),
    ("trainer.keep_best=yes", "must be true or false"),
    ("trainer.keep_best=true data.val_files=Dataset/arithmetic/data/test.parquet", "would choose by test questions"),
])  # fmt: skip
def test_what_can_not_choose_is_refused(settings, said):
    with pytest.raises(UserError) as refusal:
        shipped.prepare(SCRIPT, settings.split())
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_run_is_named_the_same_with_and_without_them():
    config = shipped.prepare(SCRIPT, ["trainer.keep_best=true", "budget.patience=3", "evaluation.val_freq=5"]).config
    assert config.run.name == "grpo_0032_8_tiny_arith_seed0"
