"""What happens between a checked config and the end of training: environment, Ray, rollout server, trainer.

The trainer runs in this process. verl's run_ppo puts it into a Ray actor so that a cluster's head node stays free, which
costs a process and ten seconds here, and would put a second process between Ctrl-C and the run.
"""

import ctypes
import importlib
import os
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from Verl import REPO_ROOT
from Verl.seeds import derive
from Verl.trainer.interruption import REQUEST
from Verl.trainer.ppo.estimators import TRAINERS
from Verl.trainer.run_log import RunLog
from Verl.trainer.verl_checks import check_with_verl

_M_MMAP_THRESHOLD = -3  # malloc.h


def set_environment(config: DictConfig) -> None:
    """What this process and, through Ray, every worker must know before verl is imported."""
    threads = str(os.environ.get("BANDIT_THREADS", os.cpu_count() or 1))
    path = os.pathsep.join(filter(None, [str(REPO_ROOT), os.environ.get("PYTHONPATH")]))
    os.environ.update(
        PYTHONPATH=path,
        VERL_USE_EXTERNAL_MODULES="Verl.adapter.plugin",
        BANDIT_THREADS=threads,
        VERL_FILE_LOGGER_PATH=str(Path(config.run.dir) / "verl_file_logger.jsonl"),
    )
    defaults = {
        "TENSORBOARD_DIR": str(Path(config.run.dir) / "tensorboard"),
        "WANDB_MODE": "offline",
        "WANDB_DIR": config.run.dir,
        "MLFLOW_TRACKING_URI": f"sqlite:///{Path(config.run.dir) / 'mlflow.db'}",
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "1",
        "HYDRA_FULL_ERROR": "1",
    }
    if config.trainer.device == "cpu":
        defaults["VERL_PLATFORM"] = "cpu"
        defaults["OMP_NUM_THREADS"] = threads  # Ray would give each worker one thread
        defaults |= _keep_freed_memory()
        defaults["RAY_num_workers_soft_limit"] = "0"  # end workers that idle: Ray starts three that none of ours can use
    for key, value in defaults.items():
        os.environ.setdefault(key, value)


def _keep_freed_memory() -> dict[str, str]:
    """Settings of glibc's malloc for the workers: memory that a pass has freed is kept for the next one.

    By default much of it goes back to the system and is taken again at every pass, zeroed page by page: a fifth of a step of
    the default run (0.79 s with it, 0.64 s without). A large model's peak grows by what is kept. Older versions refuse to take
    more than 32 MiB at once from what is kept, and with a threshold that they refuse they would keep nothing, so this one is
    asked (mallopt(3)).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # no glibc
        return {}
    largest = next((size for size in (2**30, 2**25) if mallopt(_M_MMAP_THRESHOLD, size)), None)
    return {"MALLOC_MMAP_THRESHOLD_": str(largest), "MALLOC_TRIM_THRESHOLD_": str(2**40)} if largest else {}


def stop_ray() -> None:
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()


class Runner:
    """The order of verl's own TaskRunner (verl 0.9.1, verl/trainer/main_ppo.py), in this process."""

    def __init__(self, config: DictConfig, algorithm: str, run_log: RunLog):
        self.config, self.algorithm, self.run_log = config, algorithm, run_log

    def run(self) -> None:
        check_with_verl(self.config)
        # Ray comes up in other processes and the imports go on in this one: side by side they take three seconds less.
        module, name = TRAINERS[self.algorithm]
        with ThreadPoolExecutor(1) as background:
            imports = background.submit(importlib.import_module, module)
            self._start_ray()
            trainer_class = getattr(imports.result(), name)
        config = OmegaConf.create(OmegaConf.to_container(self.config, resolve=True))
        config.transfer_queue.enable = True
        server = self._start_server(config)  # held: Ray ends an actor that nobody holds
        self._seed()
        self._train(trainer_class, config)
        del server

    def _train(self, trainer_class, config: DictConfig) -> None:
        from Verl.adapter import batched_loop, local_queue

        # Where this process alone reads and writes the rollouts they stay in it, and no queue's processes are started.
        chosen = local_queue.installed() if batched_loop.is_chosen(config) else _transfer_queue(config)
        succeeded = False
        with chosen as queue:
            try:
                trainer = trainer_class(config, self.run_log, queue)
                trainer.init()
                self.run_log.use_tokenizer(trainer.tokenizer)
                self.run_log.after_line = trainer.after_line
                REQUEST.install()  # whatever the set-up's libraries did
                REQUEST.check()
                REQUEST.wait_for_step_end()
                trainer.fit(self._agent_loop(trainer, config))
                succeeded = True
            finally:
                self.run_log.finish(exit_code=0 if succeeded else 1)

    def _start_server(self, config: DictConfig):
        if config.actor_rollout_ref.rollout.name != "hf":
            return None
        from Verl.adapter.hf_rollout import start_server

        return start_server(config.actor_rollout_ref.rollout, config.actor_rollout_ref.model)

    def _start_ray(self) -> None:
        import ray
        from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

        cpu = self.config.trainer.device == "cpu"
        options = OmegaConf.to_container(self.config.ray_kwargs.ray_init, resolve=True)
        asked = options.pop("runtime_env", None) or {}
        runtime = get_ppo_ray_runtime_env(self.config)
        runtime["env_vars"] |= {"TRANSFER_QUEUE_ENABLE": "1"} | asked.get("env_vars", {})
        if cpu:
            # Logical resources: verl places its workers on a GPU and a dozen CPUs, whatever the machine has.
            options = {"num_cpus": 16, "num_gpus": 1, "object_store_memory": 10**9} | {
                key: value for key, value in options.items() if value is not None
            }
        ray.init(
            **options,
            runtime_env={key: value for key, value in runtime.items() if value is not None},
            include_dashboard=False,
            logging_level="warning",
        )
        REQUEST.install()  # ray.init has its own handler of SIGTERM

    def _seed(self) -> None:
        import numpy as np
        import torch

        random.seed(derive(self.config.seed, "python"))
        np.random.seed(derive(self.config.seed, "numpy") % 2**32)
        torch.manual_seed(derive(self.config.seed, "torch"))

    def _agent_loop(self, trainer, config):
        from verl.utils.import_utils import load_class_from_fqn

        manager = load_class_from_fqn(config.actor_rollout_ref.rollout.agent.agent_loop_manager_class, "AgentLoopManager")
        return manager.create(
            config=config,
            llm_client=trainer.get_llm_client(),
            teacher_client=trainer.get_teacher_client(),
            reward_loop_worker_handles=trainer.get_reward_handles(),
        )


@contextmanager
def _transfer_queue(config: DictConfig) -> Iterator[None]:
    """TransferQueue's controller and storage processes."""
    import transfer_queue as tq

    tq.init(config.transfer_queue)
    try:
        yield
    finally:
        tq.close()
