"""verl's agent loop with a seed per request.

verl 0.9.1 gives all rollouts of a query the same sampling parameters (verl/trainer/ppo/v1/agent_loop_tq.py,
`_run_prompt`), so its rollouts can't be distinguished, repeated or paired. `_run_agent_loop` is called once per rollout
with its number: there the seed goes in. The `hf` server also gets how many requests belong together
(Verl/adapter/hf/rollout.py says why); vLLM, which would reject the key, is not.
"""

import itertools

import ray
from tensordict import TensorDict
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from Verl.seeds import rollout_seed

# verl applies @ray.remote to its class; what we extend is the class below that.
_PlainWorker = AgentLoopWorkerTQ.__ray_metadata__.modified_class


class SeededAgentLoopWorker(_PlainWorker):
    """Seeds every request from (run seed, step, query, rollout number)."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._declares_batches = self.rollout_config.name == "hf"
        self._batch_number = itertools.count()
        self._places: dict[str, tuple[str, int, int]] = {}

    async def generate_sequences(self, batch: TensorDict) -> None:
        rollout = self.rollout_config
        validate = bool(batch["validate"]) if "validate" in batch else False
        default_n = rollout.val_kwargs.n if validate else rollout.n
        counts = [int(n) for n in batch["__rollout_n__"]] if "__rollout_n__" in batch else [default_n] * len(batch)
        name, place = f"batch{next(self._batch_number):09d}", 0
        for uid, count in zip(batch["uid"], counts, strict=True):
            self._places[str(uid)] = (name, sum(counts), place)
            place += count
        await super().generate_sequences(batch)

    async def _run_agent_loop(self, sampling_params, trajectory, *, agent_name, trace=True, **kwargs):
        params = dict(sampling_params)
        params["seed"] = rollout_seed(
            self.config.seed,
            trajectory["step"],
            kwargs["data_source"],
            kwargs["index"],
            kwargs["session_id"] + int(kwargs.get("first_session", 0)),  # of an evaluation's further samples
            trajectory["validate"],
        )
        name, size, first = self._places[kwargs["uid"]]
        if self._declares_batches:
            params["batch"] = (name, size, first + kwargs["session_id"])
        if self.rollout_config.full_determinism:
            # verl makes a request's id of its priority, which its V1 trainer leaves at 0 for all of them.
            kwargs["priority"] = first + kwargs["session_id"]
        return await super()._run_agent_loop(params, trajectory, agent_name=agent_name, trace=trace, **kwargs)


class SeededAgentLoopManager(AgentLoopManagerTQ):
    """verl's manager with our workers."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(SeededAgentLoopWorker)
