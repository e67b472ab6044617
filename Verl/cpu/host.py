"""Many short runs in the processes of the first: what the effect check and the effect table train with.

Of a run of two steps, nine tenths of the time go into Python's imports, Ray and the processes of worker and rollout
server. A host starts these once. Each run gets a trainer, a data loader, models, optimizer and random states of its own;
what is shared are the processes.

tests/runs/test_equivalence.py compares a run here, after others, with the same run in processes of its own: the same metrics,
samples and weights, on the mini pair.
"""

from __future__ import annotations

import uuid
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from Verl.adapter.interface import replaced
from Verl.trainer.run_log import RunLog
from Verl.trainer.runner import Runner, set_environment, stop_ray

_WORKERS_AT_MOST = 8  # logical GPUs: a worker group for each set of roles that the runs need


@dataclass
class Host:
    """Processes that run after run is carried out in, until `close`. CPU only (`rollout.name=hf`)."""

    groups: dict[tuple[str, ...], Any] = field(default_factory=dict)  # roles: verl's worker group
    server: Any = None  # held: Ray ends an actor that nobody holds
    started: bool = False

    def close(self) -> None:
        """End the processes."""
        self.groups.clear()
        self.server, self.started = None, False
        stop_ray()

    def train(self, config: DictConfig, algorithm: str, run_log: RunLog) -> str:
        """Carry out one run; the SHA-256 of the actor's weights at its end.

        Raises:
            whatever the run raises; what it did to the processes is then not known: close the host.
        """
        runner = _HostedRunner(config, algorithm, run_log, self)
        set_environment(config)
        if not self.started:
            with open_dict(config):
                config.ray_kwargs.ray_init.num_gpus = _WORKERS_AT_MOST
            runner._start_ray()
            self.started = True
        with self._groups_kept(), _no_fingerprints():
            runner.run()
        return runner.weights

    def _groups_kept(self) -> AbstractContextManager:
        """verl's trainer asks for a new worker group: it gets the one that is there, with new workers in its processes."""
        from verl.single_controller.ray import RayWorkerGroup, create_colocated_worker_cls

        asked: list[dict[str, Any]] = []

        def colocated(class_dict: dict[str, Any]) -> Any:
            asked.append(class_dict)
            return create_colocated_worker_cls(class_dict=class_dict)

        def group(resource_pool: Any, ray_cls_with_init: Any, **kwargs: Any) -> Any:
            parts = asked.pop()
            roles = tuple(parts)
            if roles in self.groups:
                for role, part in parts.items():
                    getattr(self.groups[roles], f"{role}_renew")(**part.kwargs)
                return self.groups[roles]
            resource_pool.name_prefix += f"{len(self.groups)}_"  # Ray knows a placement group by its name
            # verl names actors at random, but every run sets the random states to the same.
            kwargs["name_prefix"] = f"host{len(self.groups)}"
            made = RayWorkerGroup(resource_pool=resource_pool, ray_cls_with_init=ray_cls_with_init, **kwargs)
            self.groups[roles] = made
            return made

        return replaced(create_colocated_worker_cls=colocated, RayWorkerGroup=group)


def _no_fingerprints() -> AbstractContextManager:
    """`datasets` hashes a function with all that it refers to, seconds for verl's filter of long prompts, to find a cached
    result; the data of a host's runs are filtered anew each time."""
    return replaced(update_fingerprint=lambda *_: uuid.uuid4().hex)


class _HostedRunner(Runner):
    """The order of a run, without the start of what its host has started."""

    def __init__(self, config: DictConfig, algorithm: str, run_log: RunLog, host: Host):
        super().__init__(config, algorithm, run_log)
        self.host, self.weights = host, ""

    def run(self) -> None:
        trainer_class = self._trainer_class()
        config = OmegaConf.create(OmegaConf.to_container(self.config, resolve=True))
        config.transfer_queue.enable = True
        self._start_server(config)
        self._seed()
        self._train(trainer_class, config)

    def _start_server(self, config: DictConfig) -> Any:
        import ray

        if self.host.server is None:
            self.host.server = self.device.start_server(config)
        ray.get(self.host.server.renew.remote(config.actor_rollout_ref.rollout, config.actor_rollout_ref.model))
        return self.host.server

    def _train(self, trainer_class: type, config: DictConfig) -> None:
        runner = self

        class Watched(trainer_class):
            def fit(self, *args: Any) -> None:
                super().fit(*args)
                runner.weights = self.actor_rollout_wg.weights_digest()[0]

        super()._train(Watched, config)
