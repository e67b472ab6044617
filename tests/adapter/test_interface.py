"""Fails loudly when a new verl moves one of the names that we extend. The list is Verl/adapter/interface.py."""

import importlib.metadata
import inspect

import pytest

from Verl.adapter import interface


def test_verl_is_the_pinned_version():
    assert importlib.metadata.version("verl") == interface.VERL_VERSION


@pytest.mark.parametrize("entry", interface.RELIED_ON, ids=lambda entry: f"{entry.module}:{entry.name}")
def test_verl_still_has(entry):
    found = interface.resolve(entry)
    if entry.parameters is not None:
        names = list(inspect.signature(found).parameters)
        assert names[: len(entry.parameters)] == list(entry.parameters), f"{entry.name}{names}: {entry.why}"


def test_our_overrides_override_something():
    """A method of ours that verl no longer calls would silently do nothing."""
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    for name in interface.TRAINER_METHODS:
        assert callable(getattr(PPOTrainerSync, name, None)), f"PPOTrainerSync.{name} is gone"
