"""The one door of this package: what a run on a CPU does differently from one on a GPU.

Verl/adapter/device.py has the contract and looks this module up. Heavy imports wait until a method needs them: the
environment must be set before verl is imported.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig

from Verl.adapter.device import Device

_M_MMAP_THRESHOLD = -3  # malloc.h
_BATCHED = "Verl.cpu.batched_loop.BatchedAgentLoopManager"


class CPU(Device):
    """A CPU."""

    def set_environment(self) -> None:
        os.environ["VERL_USE_EXTERNAL_MODULES"] = "Verl.cpu.plugin"
        defaults = {
            "VERL_PLATFORM": "cpu",
            "OMP_NUM_THREADS": os.environ["BANDIT_THREADS"],  # Ray would give each worker one thread
            "RAY_num_workers_soft_limit": "0",  # end workers that idle: Ray starts three that none of ours can use
            **keep_freed_memory(),
        }
        for key, value in defaults.items():
            os.environ.setdefault(key, value)

    def load(self) -> None:
        import Verl.cpu.trainer  # noqa: F401

    def ray_options(self, options: dict[str, Any], processes: int) -> dict[str, Any]:
        # Logical resources: verl places its workers on a GPU and a dozen CPUs, whatever the machine has.
        given = {key: value for key, value in options.items() if value is not None}
        return {"num_cpus": 16 * processes, "num_gpus": processes, "object_store_memory": 10**9} | given

    @contextmanager
    def training(self, config: DictConfig, trainer_class: type) -> Iterator[type]:
        from Verl.cpu import batched_loop, local_queue
        from Verl.cpu.trainer import on_cpu

        if batched_loop.is_chosen(config):
            # This process alone reads and writes the rollouts: they stay in it, and no queue's processes are started.
            with local_queue.installed() as queue:
                yield on_cpu(trainer_class, queue)
        else:
            with super().training(config, on_cpu(trainer_class, None)) as chosen:
                yield chosen

    def vllm_server(self) -> type:
        from Verl.cpu.vllm_server import CPUHttpServer

        return CPUHttpServer

    def can_host(self, config: DictConfig) -> bool:
        alone = config.trainer.nnodes * config.trainer.n_gpus_per_node == 1
        rollout = config.actor_rollout_ref.rollout  # others start further processes, which Ray would have to end
        return alone and rollout.name == "hf" and rollout.agent.agent_loop_manager_class == _BATCHED

    def host(self) -> Any:
        from Verl.cpu.host import Host

        return Host()


def keep_freed_memory() -> dict[str, str]:
    """Settings of glibc's malloc for the workers: memory that a pass has freed is kept for the next one.

    By default much of it goes back to the system and is taken again at every pass, zeroed page by page: a fifth of a step of
    the default run (0.79 s with it, 0.64 s without). A large model's peak grows by what is kept. Older versions refuse to take
    more than 32 MiB at once from what is kept, and with a threshold that they refuse they would keep nothing: the
    largest that this one takes is set (mallopt(3)).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # no glibc
        return {}
    largest = next((size for size in (2**30, 2**25) if mallopt(_M_MMAP_THRESHOLD, size)), None)
    return {"MALLOC_MMAP_THRESHOLD_": str(largest), "MALLOC_TRIM_THRESHOLD_": str(2**40)} if largest else {}
