"""Many runs in the processes of the first: Python with its imports, Ray, worker and rollout server are started once.

Each run gets a trainer, a data loader, models, optimizer and random states of its own, and finds its processes as they were
before the first (Verl/adapter/process_state.py). What a library replaces for good in a process, by a run's settings, is not
undone: a run that differs in one of `MARKS` gets worker processes of its own.

The study runner (Verl/study/host_process.py), the effect check and the effect table train here. tests/runs/test_host.py and
test_equivalence.py compare a run here, after others, with the same run in processes of its own: the same bytes in metrics,
samples and weights.
"""

from __future__ import annotations

import copy
import gc
import json
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from Verl.adapter.interface import replaced
from Verl.adapter.process_state import ProcessState
from Verl.trainer.ppo.estimators import TRAINERS
from Verl.trainer.run_log import RunLog
from Verl.trainer.task_runner import InProcessRunner, set_environment, stop_ray
from Verl.trainer.verl_checks import check_with_verl

_WORKERS_AT_MOST = 8  # worker groups, one for each set of roles and marks that the runs need; then the host begins anew
_LOGICAL = {"num_gpus": 16, "num_cpus": 256}  # of Ray: a group asks for a GPU and three CPUs, whatever the machine has
_ANSWERS_WITHIN = 60.0  # seconds
# Settings by which verl replaces what it finds in a worker's process (verl 0.9.1: workers/engine/fsdp/transformer_impl.py,
# models/transformers/monkey_patch.py, workers/engine/utils.py), or by which the process itself is started.
MARKS = (
    "actor_rollout_ref.model", "actor_rollout_ref.actor.fsdp_config", "actor_rollout_ref.ref.fsdp_config",
    "actor_rollout_ref.actor.strategy", "actor_rollout_ref.actor.profiler", "actor_rollout_ref.ref.profiler",
    "actor_rollout_ref.rollout.profiler", "actor_rollout_ref.rollout.quantization", "global_profiler",
)  # fmt: skip
_NO_MARKS = ("seed", "path")  # of these: numbers and names that each run's models are made with
_OF_RAY = ("ray_kwargs",)


@dataclass
class Host:
    """Processes that run after run is carried out in, until `close`. CPU only (`rollout.name=hf`)."""

    groups: dict[tuple[str, ...], Any] = field(default_factory=dict)  # roles and marks: verl's worker group
    server: Any = None  # held: Ray ends an actor that nobody holds
    fresh: ProcessState | None = None  # of this process, once everything is imported
    imported: dict[str, str] = field(default_factory=dict)  # variables that the imports and Ray's start have set
    ray: str | None = None  # the settings that Ray was started with

    def close(self) -> None:
        """End the processes."""
        self.groups.clear()
        self.server, self.ray = None, None
        stop_ray()

    def takes(self, config: DictConfig) -> bool:
        """Whether this run's Ray would be the one that is there."""
        return self.ray is None or self.ray == _settings(config, _OF_RAY)

    def is_well(self) -> bool:
        """Whether its processes are still there."""
        if self.ray is None:
            return True
        import ray

        workers = [worker for group in self.groups.values() for worker in group.workers]
        try:
            ray.get([one.__ray_ready__.remote() for one in filter(None, (self.server, *workers))], timeout=_ANSWERS_WITHIN)
        except Exception:  # any of Ray's, or Ray itself is gone
            return False
        return True

    def renew(self) -> None:
        """This process as it was before its first run, the variables and the folder apart: they are the caller's."""
        if self.fresh is not None:
            self.fresh.restore(environment=False)
            os.environ.update({name: value for name, value in self.imported.items() if name not in os.environ})

    def run(self, config: DictConfig, algorithm: str, run_log: RunLog) -> None:
        """Carry out one run, in an environment that is set.

        Raises:
            whatever the run raises; what it did to the processes is then not known: close the host.
        """
        self._carry_out(_HostedRunner(config, algorithm, run_log, self))

    def train(self, config: DictConfig, algorithm: str, run_log: RunLog) -> str:
        """`run`, and the SHA-256 of the actor's weights at its end."""
        self.renew()
        set_environment(config)
        runner = _DigestingRunner(config, algorithm, run_log, self)
        self._carry_out(runner)
        return runner.weights

    def _carry_out(self, runner: _HostedRunner) -> None:
        if not self.takes(runner.config) or self._is_full(runner.config):
            self.close()
        if self.ray is None:
            self._start(runner)
        with self._groups_kept(runner.config), _no_fingerprints():
            runner.run()

    def _is_full(self, config: DictConfig) -> bool:
        """Whether the run would need one worker group more than there may be: each holds its models and 0.6 GB."""
        marks = _settings(config, MARKS)
        return len(self.groups) >= _WORKERS_AT_MOST and not any(key[-1] == marks for key in self.groups)

    def _start(self, runner: _HostedRunner) -> None:
        """Ray comes up in other processes, and the imports go on in this one."""
        self.ray = _settings(runner.config, _OF_RAY)
        given, runner.config = runner.config, copy.deepcopy(runner.config)
        with open_dict(runner.config):
            runner.config.ray_kwargs.ray_init.update(_LOGICAL)
        before = dict(os.environ)
        with ThreadPoolExecutor(1) as background:
            imports = background.submit(runner.load)
            runner._start_ray()
            imports.result()
        runner.config = given
        # Ray's token among them, which is another one when Ray was started again.
        self.imported |= {name: value for name, value in os.environ.items() if before.get(name) != value}
        if self.fresh is None:
            self.fresh = ProcessState.now()
            gc.freeze()  # a collection goes through all that was imported, a third of a second before each later run

    def _groups_kept(self, config: DictConfig) -> AbstractContextManager:
        """verl's trainer asks for a new worker group: it gets the one that is there, with new workers in its processes."""
        from verl.single_controller.ray import RayWorkerGroup, create_colocated_worker_cls

        requested: list[dict[str, Any]] = []
        marks = _settings(config, MARKS)

        def colocated(class_dict: dict[str, Any]) -> Any:
            requested.append(class_dict)
            return create_colocated_worker_cls(class_dict=class_dict)

        def group(resource_pool: Any, ray_cls_with_init: Any, **kwargs: Any) -> Any:
            parts = requested.pop()
            key = (*parts, marks)
            if key in self.groups:
                for role, part in parts.items():
                    getattr(self.groups[key], f"{role}_renew")(**part.kwargs)
                return self.groups[key]
            resource_pool.name_prefix += f"{len(self.groups)}_"  # Ray knows a placement group by its name
            # verl names actors at random, but every run sets the random states to the same.
            kwargs["name_prefix"] = f"host{len(self.groups)}"
            made = RayWorkerGroup(resource_pool=resource_pool, ray_cls_with_init=ray_cls_with_init, **kwargs)
            self.groups[key] = made
            return made

        return replaced(create_colocated_worker_cls=colocated, RayWorkerGroup=group)


def _settings(config: DictConfig, keys: tuple[str, ...]) -> str:
    """The settings below these keys as one text."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(part) for name, part in value.items() if name not in _NO_MARKS}
        return value

    chosen = {key: OmegaConf.select(config, key) for key in keys}
    found = {key: OmegaConf.to_container(one, resolve=True) if OmegaConf.is_config(one) else one for key, one in chosen.items()}
    return json.dumps(plain(found), sort_keys=True, default=str)


def _no_fingerprints() -> AbstractContextManager:
    """`datasets` hashes a function with all that it refers to, seconds for verl's filter of long prompts, to find a cached
    result; the data of a host's runs are filtered anew each time."""
    return replaced(update_fingerprint=lambda *_: uuid.uuid4().hex)


class _HostedRunner(InProcessRunner):
    """The order of a run, without the start of what its host has started."""

    def __init__(self, config: DictConfig, algorithm: str, run_log: RunLog, host: Host):
        super().__init__(config, algorithm, run_log)
        self.host = host

    def load(self) -> None:
        """Import what any run may need, whichever is first."""
        for algorithm in TRAINERS:
            self._trainer_class(algorithm)

    def run(self) -> None:
        check_with_verl(self.config)
        trainer_class = self._trainer_class()
        config = OmegaConf.create(OmegaConf.to_container(self.config, resolve=True))
        config.transfer_queue.enable = True
        self._start_server(config)
        self._seed()
        self._train(trainer_class, config)

    def _start_server(self, config: DictConfig) -> Any:
        import ray

        requested = config.actor_rollout_ref.rollout, config.actor_rollout_ref.model
        if self.host.server is None:
            self.host.server = self.device.start_server(config)
            self.host.server.keep_first_answers.remote()
        else:
            ray.get(self.host.server.renew.remote(*requested))
        return self.host.server


class _DigestingRunner(_HostedRunner):
    """Also takes the SHA-256 of the weights."""

    weights = ""

    def _train(self, trainer_class: type, config: DictConfig) -> None:
        runner = self

        class Watched(trainer_class):
            def fit(self, *args: Any) -> None:
                super().fit(*args)
                runner.weights = self.actor_rollout_wg.weights_digest()[0]

        super()._train(Watched, config)
