"""Where a run computes, behind one door: what `trainer.device` changes about a run, in one class.

The defaults are verl's own ways, which a GPU takes. The CPU's are in Verl/cpu, which nothing outside of it imports: it is
looked up here, by its name. Neither torch nor verl is imported before a method needs it.
"""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig

from Verl.errors import UserError

_ELSEWHERE = {"cpu": ("Verl.cpu.device", "CPU")}


class Device:
    """A GPU."""

    def set_environment(self) -> None:
        """Environment variables of this process and, through Ray, of every worker; before verl is imported."""
        os.environ["VERL_USE_EXTERNAL_MODULES"] = "Verl.adapter.hf.plugin"

    def load(self) -> None:
        """Imports what training needs; the launcher does it beside Ray's start, which takes as long."""

    def ray_options(self, options: dict[str, Any], processes: int) -> dict[str, Any]:
        """What `ray.init` is given. Args: options: `ray_kwargs.ray_init` of the run; processes: that train on this machine."""
        return options

    def start_server(self, config: DictConfig) -> Any:
        """Starts the rollout server as soon as Ray is up, where it need not wait for the trainer; returns what must be held."""
        if config.actor_rollout_ref.rollout.name != "hf":
            return None
        from Verl.adapter.hf.rollout import start_server

        return start_server(config.actor_rollout_ref.rollout, config.actor_rollout_ref.model)

    @contextmanager
    def training(self, config: DictConfig, trainer_class: type) -> Iterator[type]:
        """Around training: opens the queue that rollouts go through, and says which class trains."""
        import transfer_queue as tq

        tq.init(config.transfer_queue)
        try:
            yield trainer_class
        finally:
            tq.close()

    def vllm_server(self) -> type:
        """verl's class of a vLLM server."""
        from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer

        return vLLMHttpServer

    def decoder(self, model: Any, end_tokens: set[int], max_rows: int) -> Any:
        """What generates with a Hugging Face model; its `generate` takes requests and gives completions
        (Verl/adapter/generation.py)."""
        from Verl.adapter.hf.decoder import Decoder

        return Decoder(model, end_tokens, max_rows)

    def can_host(self, config: DictConfig) -> bool:
        """Whether runs like this one may share processes: whether a run then starts in the state of a fresh process.

        On a GPU this has not been shown: what an earlier run leaves in vLLM, CUDA and its allocator may change a byte.
        """
        return False

    def host(self) -> Any:
        """Processes that carry out runs one after another (`run`, `train`, `renew`, `close`)."""
        raise NotImplementedError("several runs share their processes on a CPU only")


def device_for(name: str) -> Device:
    """The device of that name (`trainer.device`).

    Raises:
        UserError: its package is not there.
    """
    if name not in _ELSEWHERE:
        return Device()
    module, class_name = _ELSEWHERE[name]
    try:
        return getattr(importlib.import_module(module), class_name)()
    except ModuleNotFoundError as error:
        if not module.startswith(error.name or "?"):
            raise
        raise UserError(f"trainer.device={name} needs the package {error.name}, which is not here: take cuda") from None
