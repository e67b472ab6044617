"""What happens between a checked config and the end of training: environment, Ray, rollout server, trainer.

The trainer runs in this process. verl's run_ppo puts it into a Ray actor so that a cluster's head node stays free, which
costs a process and ten seconds here, and would put a second process between Ctrl-C and the run.
"""

import importlib
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from Verl import REPO_ROOT, cores
from Verl.adapter.balance import plain_workloads
from Verl.adapter.device import device_for
from Verl.seeds import derive
from Verl.trainer import determinism, own_ray, trackers
from Verl.trainer.interruption import REQUEST
from Verl.trainer.ppo.estimators import TRAINERS
from Verl.trainer.run_log import RunLog
from Verl.trainer.start_watch import StartWatch
from Verl.trainer.verl_checks import check_with_verl


def set_environment(config: DictConfig) -> None:
    """What this process and, through Ray, every worker must know before verl is imported."""
    path = os.pathsep.join(filter(None, [str(REPO_ROOT), os.environ.get("PYTHONPATH")]))
    os.environ.update(
        PYTHONPATH=path,
        BANDIT_THREADS=str(cores.threads()),
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
    for key, value in defaults.items():
        os.environ.setdefault(key, value)
    own_ray.set_environment(config)
    os.environ.update(determinism.environment(config))
    device_for(config.trainer.device).set_environment()
    # Checkpoints are read as data, in every process (Verl/adapter/safe_load.py).
    for name in ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):  # both override what is asked for
        os.environ.pop(name, None)
    modules = ["Verl.adapter.safe_load", *filter(None, os.environ.get("VERL_USE_EXTERNAL_MODULES", "").split(","))]
    os.environ["VERL_USE_EXTERNAL_MODULES"] = ",".join(dict.fromkeys(modules))


def stop_ray() -> None:
    """End what `InProcessRunner` has started of Ray."""
    own_ray.stop()


class InProcessRunner:
    """The order of verl's own TaskRunner (verl 0.9.1, verl/trainer/main_ppo.py), in this process."""

    def __init__(self, config: DictConfig, algorithm: str, run_log: RunLog):
        self.config, self.algorithm, self.run_log = config, algorithm, run_log
        self.device = device_for(config.trainer.device)
        self.watch = StartWatch(run_log.console.say, lambda reason: run_log.describe(status="failed", reason=reason))

    def run(self) -> None:
        check_with_verl(self.config)
        with self.watch:
            self._run()

    def _run(self) -> None:
        self.watch.stage("Ray's processes")
        # Ray comes up in other processes and the imports go on in this one: side by side they take three seconds less.
        with ThreadPoolExecutor(1) as background:
            imports = background.submit(self._trainer_class)
            self._start_ray()
            self.watch.stage("the imports")
            trainer_class = imports.result()
        self.watch.stage("Ray's workers, which load the model", needs_workers=True)
        config = OmegaConf.create(OmegaConf.to_container(self.config, resolve=True))
        config.transfer_queue.enable = True
        server = self.device.start_server(config)  # held: Ray ends an actor that nobody holds
        self._seed()
        self._train(trainer_class, config)
        del server

    def _trainer_class(self, algorithm: str | None = None) -> type:
        module, name = TRAINERS[algorithm or self.algorithm]
        self.device.load()
        return getattr(importlib.import_module(module), name)

    def _train(self, trainer_class: type, config: DictConfig) -> None:
        succeeded = False
        with self.device.training(config, trainer_class) as chosen, plain_workloads():
            try:
                trainer = chosen(config, self.run_log)
                trainer.init()
                self.watch.done()
                self.run_log.use_tokenizer(trainer.tokenizer)
                trackers.prepare(config, self.run_log)
                self.run_log.after_line = trainer.after_line
                REQUEST.install()  # whatever the set-up's libraries did
                REQUEST.check()
                REQUEST.wait_for_step_end()
                trainer.fit(self._agent_loop(trainer, config))
                succeeded = True
            finally:
                self.run_log.finish(exit_code=0 if succeeded else 1)

    def _start_ray(self) -> None:
        from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

        own_ray.start(self.config, self.device, get_ppo_ray_runtime_env(self.config))
        REQUEST.install()  # ray.init has its own handler of SIGTERM

    def _seed(self) -> None:
        import numpy as np
        import torch

        random.seed(derive(self.config.seed, "python"))
        np.random.seed(derive(self.config.seed, "numpy") % 2**32)
        torch.manual_seed(derive(self.config.seed, "torch"))

    def _agent_loop(self, trainer, config):
        from verl.utils.import_utils import load_class_from_fqn

        manager = load_class_from_fqn(
            config.actor_rollout_ref.rollout.agent.agent_loop_manager_class, "AgentLoopManager"
        )
        return manager.create(
            config=config,
            llm_client=trainer.get_llm_client(),
            teacher_client=trainer.get_teacher_client(),
            reward_loop_worker_handles=trainer.get_reward_handles(),
        )
