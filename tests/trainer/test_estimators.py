"""The registry: what each entry says holds in its trainer, and it can be read where neither torch nor verl is loaded."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from Verl.trainer.ppo import estimators as registry
from Verl.trainer.ppo.ray_trainer_bandit import RayTrainerBandit
from Verl.trainer.ppo.ray_trainer_grpo import RayTrainerGRPO
from Verl.trainer.ppo.ray_trainer_replay import RayTrainerReplay
from Verl.trainer.ppo.reward_history import RewardHistory
from Verl.trainer.settings import compose

TRAINERS = {"grpo": RayTrainerGRPO, "bandit": RayTrainerBandit, "replay": RayTrainerReplay}


def test_the_entry_points_are_the_trainers():
    assert {entry: (cls.__module__, cls.__name__) for entry, cls in TRAINERS.items()} == registry.TRAINERS


def test_the_registry_is_read_without_torch_and_verl():
    code = (
        "import sys; from Verl.trainer.ppo.estimators import estimators; estimators(); "
        "import Verl.trainer.config_checks, Verl.design.declared; "
        "print([m for m in ('torch', 'verl', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", (
        f"{done.stdout}{done.stderr}: import torch within the function that needs it, not at the top of core_algos_*.py"
    )


@pytest.mark.parametrize("name", registry.ours())
def test_every_formula_gets_what_it_takes_from_its_trainer(name):
    """Two responses to query a and one to b, as the trainer hands them over: an advantage per token, 0 at padding."""
    estimator = registry.estimators()[name]
    size = [f"{estimator.size.key}=2"] if estimator.size else []
    config = compose(estimator.entry, [f"algorithm.adv_estimator={name}", *size])
    rewards = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 1, 1]])
    extra = SimpleNamespace(rewards=[1.0, 0.0], uids=["a", "b"]) if estimator.size is registry.EXTRA else None
    rollouts = SimpleNamespace(uids=["a", "a", "b"], extra=extra, query_keys=lambda: [("set", 0), ("set", 0), ("set", 1)])
    trainer = object.__new__(TRAINERS[estimator.entry])
    trainer.config, trainer.global_steps, trainer.history = config, 1, RewardHistory(2)
    trainer._remember = lambda rollouts: trainer.history.add(rollouts.query_keys(), [1.0, 0.0, 1.0], 1)
    advantages, _ = trainer.advantages(rewards, mask, rollouts)
    assert advantages.shape == mask.shape and advantages.isfinite().all() and not advantages.requires_grad
    assert advantages[0, 2] == 0 and (advantages[:, 0] == advantages[:, 1]).all() and advantages.any()


def test_verl_s_own_estimators_are_left_to_verl():
    trainer = SimpleNamespace(config=compose("grpo", ["algorithm.adv_estimator=rloo"]))
    assert RayTrainerGRPO.advantages(trainer, None, None, None) is None
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

    of_verl = {one.name for one in registry.estimators().values() if one.formula is None}
    assert of_verl <= set(ADV_ESTIMATOR_REGISTRY)


def test_an_entry_that_can_t_be_is_a_sentence(monkeypatch):
    with pytest.raises(ValueError, match="there is no entry point 'gropo'; choose grpo, bandit, replay"):
        registry.Estimator("mine", entry="gropo")
    monkeypatch.setattr(registry, "import_module", lambda name: SimpleNamespace(ENTRIES=[registry.Estimator("mine")]))
    with pytest.raises(ValueError, match="there is an estimator mine already"):
        registry.estimators.__wrapped__()


def test_a_formula_is_given_what_it_names():
    named = registry.Estimator("a", formula=lambda index, scale=1: ((index, scale), None))
    assert named.advantages(index=3, histories=4) == (3, 1)
    everything = registry.Estimator("b", formula=lambda index, **more: ((index, more), None))
    assert everything.advantages(index=3, histories=4) == (3, {"histories": 4})
