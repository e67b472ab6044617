"""A run's folder: the same run goes on, another one under its name is refused."""

import pytest

from Verl import REPO_ROOT
from Verl.errors import UserError
from Verl.files import write_atomic
from Verl.study import shipped
from Verl.trainer import launch


def opened(folder, *overrides):
    config = shipped.prepare("run_grpo_0032_8_tiny_arith.sh", overrides).config
    config.run.dir = str(folder / "run")
    return config


def test_a_path_in_the_repository_is_the_same_run_however_it_is_written(tmp_path):
    config = opened(tmp_path, f"actor_rollout_ref.model.path={REPO_ROOT}/.cache/models/tiny")
    assert launch._open_run(config)
    write_atomic(tmp_path / "run/config.yaml", launch._recorded(config))
    assert str(REPO_ROOT) not in (tmp_path / "run/config.yaml").read_text()
    assert launch._open_run(config)
    assert launch._open_run(opened(tmp_path, "actor_rollout_ref.model.path=.cache/models/tiny"))
    with pytest.raises(UserError, match=r"exists with other settings \(actor_rollout_ref.actor.optim.lr\)"):
        launch._open_run(opened(tmp_path, "actor_rollout_ref.actor.optim.lr=1e-3"))
