"""A whole batch of single-turn rollouts in one message: what a CPU run uses instead of verl's agent loop.

verl 0.9.1 runs every rollout as a coroutine of its own, with half a dozen messages each: a lock at the load balancer, a
call to the server, a call to the reward worker, a write to the transfer queue. That is what makes many servers and
many turns possible; on one machine with one turn it is most of a small model's step. verl lets the agent loop manager
be replaced (`rollout.agent.agent_loop_manager_class`; it must offer `generate_sequences` and write its outputs to the
transfer queue, verl/trainer/main_ppo.py), so this one tokenises, asks the server, scores and writes once per batch.

Same requests, same seeds and same scores as Verl/adapter/agent_loop.py: a test compares the two. Of its fields those are
left out that say nothing new (batch_fields.py). For tools, several turns or a reward model choose that one.
"""

import asyncio
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import TensorDict
from tensordict.tensorclass import NonTensorStack
from verl.trainer.ppo.reward import load_reward_manager
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.tokenizer import normalize_token_ids
from verl.workers.rollout.replica import TokenOutput

from Verl.adapter.hf.rollout import server_name
from Verl.adapter.interface import replaced
from Verl.adapter.nested import nested, plain, stacked
from Verl.seeds import rollout_seed


class BatchedAgentLoopManager:
    """Single-turn rollouts from the `hf` server, a batch at a time. It runs in the trainer's process."""

    def __init__(self, config: DictConfig):
        self.config, self.rollout, self.run_seed = config, config.actor_rollout_ref.rollout, config.seed
        self.tokenizer = omega_conf_to_dataclass(config.actor_rollout_ref.model).tokenizer
        self.reward_manager = load_reward_manager(config, self.tokenizer)
        self.server = ray.get_actor(server_name(0))
        self._prompt_ids: dict[str, list[int]] = {}

    @classmethod
    def create(cls, config: DictConfig, **handles: Any) -> "BatchedAgentLoopManager":
        """verl's way to make one; the handles to its server clients and reward workers are not needed."""
        return cls(config)

    def generate_sequences(self, batch: TensorDict) -> None:
        """Draws, scores and writes every rollout of a batch of queries; returns when all are in the queue."""
        validate = bool(batch["validate"]) if "validate" in batch else False
        queries = _rows(batch)
        rows = [
            (query, session)
            for query in queries
            for session in range(int(query.get("__rollout_n__", self.rollout.val_kwargs.n if validate else self.rollout.n)))
        ]
        prompts = self._prompts([query for query, _ in rows])
        sampling = self._sampling(validate)
        params = [sampling | {"seed": self._seed(query, session, validate)} for query, session in rows]
        outputs: list[TokenOutput] = ray.get(self.server.generate_batch.remote(prompts, params))
        rewards = asyncio.run(self._score(rows, outputs))
        partition = "val" if validate else "train"
        self._write(partition, rows, prompts, outputs, rewards)
        uids = [query["uid"] for query in queries]
        tq.kv_batch_put(keys=uids, partition_id=partition, tags=[{"status": "finished"}] * len(uids))

    def _prompts(self, queries: list[dict[str, Any]]) -> list[list[int]]:
        """Token ids of the chat prompts, kept: the same questions come back every epoch and at every evaluation."""
        keys = [repr(query["raw_prompt"]) for query in queries]
        new = {key: list(query["raw_prompt"]) for key, query in zip(keys, queries) if key not in self._prompt_ids}
        if new:
            settings = dict(self.config.data.get("apply_chat_template_kwargs") or {})
            ids = self.tokenizer.apply_chat_template(
                list(new.values()), add_generation_prompt=True, tokenize=True, return_dict=False, **settings
            )
            # As verl caps a text prompt: the dataset has filtered longer ones already.
            length = self.rollout.prompt_length
            self._prompt_ids |= {key: normalize_token_ids(one)[-length:] for key, one in zip(new, ids, strict=True)}
        return [self._prompt_ids[key] for key in keys]

    def _sampling(self, validate: bool) -> dict[str, Any]:
        source = self.rollout.val_kwargs if validate else self.rollout
        return {"temperature": source.temperature, "top_p": source.top_p, "top_k": source.top_k}

    def _seed(self, query: dict[str, Any], session: int, validate: bool) -> int:
        session += int(query.get("first_session", 0))  # of an evaluation's further samples
        return rollout_seed(
            self.run_seed, query["global_steps"], query["data_source"], query["index"], session, validate
        )

    async def _score(self, rows: list[tuple[dict, int]], outputs: list[TokenOutput]) -> list[dict[str, Any]]:
        # The reward manager reads one response of a DataProto by attribute; building 256 of those costs more than scoring.
        def sample(query: dict, session: int, output: TokenOutput) -> list[SimpleNamespace]:
            ids = torch.tensor(output.token_ids)
            return [
                SimpleNamespace(
                    batch={"responses": ids, "attention_mask": torch.ones_like(ids)},
                    non_tensor_batch={**query, "session_id": session, "__num_turns__": 2},
                )
            ]

        run = self.reward_manager.run_single
        return await asyncio.gather(
            *(run(sample(query, session, output)) for (query, session), output in zip(rows, outputs, strict=True))
        )

    def _write(self, partition: str, rows, prompts, outputs: list[TokenOutput], rewards: list[dict[str, Any]]) -> None:
        responses = [torch.tensor(output.token_ids) for output in outputs]
        prompt_tensors = [torch.tensor(ids) for ids in prompts]
        masks = [torch.ones_like(ids) for ids in responses]
        scores = [torch.zeros(len(ids)) for ids in responses]
        for score, reward in zip(scores, rewards, strict=True):
            score[-1] = reward["reward_score"]
        steps = [output.extra_fields.get("global_steps") for output in outputs]
        shared: dict[str, dict] = {}  # most responses are scored alike: one object for all of a kind
        extra = [{"reward_extra_info": reward["reward_extra_info"], "global_steps": step}
                 for reward, step in zip(rewards, steps, strict=True)]  # fmt: skip
        extra = [shared.setdefault(repr(one), one) for one in extra]
        fields = {
            "prompts": nested(prompt_tensors),
            "responses": nested(responses),
            "response_mask": nested(masks),
            "rollout_log_probs": nested([torch.tensor(output.log_probs) for output in outputs]),
            "rm_scores": nested(scores),
            "num_turns": stacked([2] * len(rows)),
            "extra_fields": stacked(extra),
            **{name: stacked([query[name] for query, _ in rows]) for name in ("uid", "index", "data_source")},
        }
        tags = [
            {
                "status": "success",
                "prompt_len": len(prompt),
                "response_len": len(response),
                "seq_len": len(prompt) + len(response),
                "global_steps": query["global_steps"],
                "min_global_steps": step,
                "max_global_steps": step,
            }
            for (query, _), prompt, response, step in zip(rows, prompts, responses, steps, strict=True)
        ]
        keys = [f"{query['uid']}_{session}_0" for query, session in rows]
        tq.kv_batch_put(keys=keys, partition_id=partition, fields=TensorDict(fields, batch_size=len(rows)), tags=tags)


def is_chosen(config: DictConfig) -> bool:
    """Whether a run draws its rollouts with the batched manager."""
    name = f"{BatchedAgentLoopManager.__module__}.{BatchedAgentLoopManager.__qualname__}"
    return config.actor_rollout_ref.rollout.agent.agent_loop_manager_class == name


def without_load_balancer(config: DictConfig) -> AbstractContextManager:
    """Around verl's set-up: no load-balancer actor where the batched manager, which asks its server itself, is used.

    verl 0.9.1 starts one in any case (verl/workers/rollout/llm_server.py): a process of 0.4 GB that takes six seconds of
    a CPU to import verl and then is never asked.
    """

    async def none(manager: Any) -> None:
        manager.global_load_balancer = None

    return replaced(_init_global_load_balancer=none) if is_chosen(config) else nullcontext()


def _rows(batch: TensorDict) -> list[dict[str, Any]]:
    """A batch of queries as one plain dictionary per query; per-batch values (the step) stand in each."""
    columns: dict[str, list] = {}
    for name, value in batch.items():
        if isinstance(value, torch.Tensor):
            continue
        if isinstance(value, NonTensorStack):
            columns[name] = plain(value)
        else:
            columns[name] = [value.data if hasattr(value, "data") else value] * len(batch)
    return [{name: values[row] for name, values in columns.items()} for row in range(len(batch))]
