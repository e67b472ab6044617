"""The training worker on a CPU: verl's own worker and fsdp2 engine, with two facts about CPUs put right.

1. verl 0.9.1 asks torch for the process-group backend "cpu:gloo,<device>:<backend>" (verl/utils/distributed.py). On a
   CPU both halves name the same device, which torch rejects, so the group is opened before verl tries to; verl then
   finds it and leaves it alone.
2. The fsdp2 engine puts the reference model under CPUOffloadPolicy(pin_memory=True) to save GPU memory
   (verl/workers/engine/fsdp/transformer_impl.py). Pinning needs an accelerator, and the model is in main memory
   already, so the policy is left out.
"""

import os
from contextlib import contextmanager

import torch
from verl.single_controller.base.decorator import Dispatch, register
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp import transformer_impl
from verl.workers.engine_workers import ActorRolloutRefWorker


@contextmanager
def _without_offload_policy():
    original = transformer_impl.CPUOffloadPolicy
    transformer_impl.CPUOffloadPolicy = lambda **kwargs: None
    try:
        yield
    finally:
        transformer_impl.CPUOffloadPolicy = original


@EngineRegistry.register(model_type="language_model", backend=["fsdp2"], device=["cpu"])
class CPUEngine(transformer_impl.FSDPEngineWithLMHead):
    """verl's fsdp2 engine for a language model, on a CPU. Set fp32 throughout: bf16 is emulated on most CPUs."""

    def _build_fsdp_module(self, module):
        with _without_offload_policy():
            return super()._build_fsdp_module(module)


class CPUWorker(ActorRolloutRefWorker):
    """Actor, reference and rollout adapter in one process, as on a GPU."""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self):
        torch.set_num_threads(int(os.environ.get("BANDIT_THREADS", os.cpu_count() or 1)))
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group(
                "gloo", rank=int(os.environ.get("RANK", 0)), world_size=int(os.environ.get("WORLD_SIZE", 1))
            )
        return super().init_model()
