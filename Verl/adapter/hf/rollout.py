"""A rollout server that decodes with the Hugging Face model itself, for machines without vLLM, with a GPU or without.

verl 0.9.1 talks to a rollout in two places, and both are given here:

* `RolloutReplica.launch_servers` starts a Ray actor with `generate` and a few control calls (verl/workers/rollout/
  replica.py; the vLLM one is vllm_async_server.py);
* a `BaseRollout` adapter inside the training worker sends new weights to that actor (verl/workers/rollout/base.py).

The same config keys as for vLLM apply: temperature, top_p, top_k, `n`, lengths, `max_num_seqs` (rows decoded at once).

On a GPU the server shares the card with the training worker: its weights stay there, what a batch took is given back.
"""

import asyncio
import gc
import os
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import ray
import torch
from verl.plugin.platform.platform_manager import get_platform
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.device import get_device_name, get_torch_device
from verl.workers.config import HFModelConfig, RolloutConfig
from verl.workers.engine.utils import enable_full_determinism
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput

from Verl import cores
from Verl.adapter.generation import Completion, Request, end_tokens
from Verl.adapter.hf.decoder import Decoder
from Verl.adapter.hf.first_answers import FirstAnswers
from Verl.adapter.process_state import ProcessState

_QUIET_SECONDS = 0.005  # requests outside a declared batch wait this long for company
_STALLED_SECONDS = 30.0  # a declared batch that stops growing for this long is decoded as it is


def server_name(replica_rank: int) -> str:
    """The Ray name under which the weight sync finds its server."""
    return f"hf_server_{replica_rank}"


def to_request(prompt_ids: list[int], params: dict[str, Any], config: RolloutConfig) -> Request:
    """verl's sampling parameters (vLLM's names) as a decoder request.

    Raises:
        ValueError: for a parameter that this server does not know, rather than ignoring it.
    """
    params = dict(params)
    room = config.prompt_length + config.response_length - len(prompt_ids)
    limit = params.pop("max_tokens", None) or params.pop("max_new_tokens", None) or config.response_length
    for ignored in ("logprobs", "batch"):
        params.pop(ignored, None)
    if params.pop("repetition_penalty", 1.0) != 1.0:
        raise ValueError("repetition_penalty is not supported by rollout.name=hf: leave it at 1.0")
    request = Request(
        prompt_ids=prompt_ids,
        max_tokens=max(1, min(limit, room)),
        seed=params.pop("seed", None),
        temperature=params.pop("temperature", 1.0),
        top_k=params.pop("top_k", -1),
        top_p=params.pop("top_p", 1.0),
        stop_sequences=params.pop("stop_token_sequences", ()),
        ignore_eos=params.pop("ignore_eos", config.ignore_eos),
    )
    if params:
        raise ValueError(f"rollout.name=hf does not know the sampling parameters {sorted(params)}")
    return request


class HFServer:
    """The rollout server actor. Requests that wait are decoded together, in a thread, one batch at a time.

    A caller that knows how many requests belong together says so with the sampling parameter
    `batch = (name, size, place)`: the server then waits for all of them and decodes them in the order of their places,
    so that a run does not depend on the order in which messages arrive.
    """

    def __init__(self, config: RolloutConfig, model_config: dict, threads: int, number: int = 0):
        self._fresh = ProcessState.now()
        gc.freeze()  # a collection goes through all that was imported, a third of a second before each later run
        self._device = torch.device(get_device_name(), number) if get_device_name() != "cpu" else torch.device("cpu")
        # All that computes does so in this one thread: OpenMP keeps a team of threads for each thread that ever called it,
        # and with more of them than cores it lets them sleep between two operations, 40 microseconds a time.
        self._thread = ThreadPoolExecutor(max_workers=1, initializer=torch.set_num_threads, initargs=(threads,))
        self._loaded: tuple[Any, Any] | None = None  # settings and model of the last set-up
        self._first_answers = FirstAnswers()
        self._set_up(config, model_config)

    def _set_up(self, config: RolloutConfig, model_config: dict) -> None:
        self.config: RolloutConfig = omega_conf_to_dataclass(config)
        self.model_config: HFModelConfig = omega_conf_to_dataclass(model_config, dataclass_type=HFModelConfig)
        self.tokenizer = self.model_config.tokenizer
        if self.config.full_determinism:
            self._thread.submit(enable_full_determinism, self.config.seed).result()
        settings = (model_config, self.config.dtype)
        kept = self._loaded[1] if self._loaded and self._loaded[0] == settings else None
        self.decoder = self._thread.submit(self._make_decoder, kept).result()
        self._loaded = (settings, self.decoder.model)
        decoder = (self.decoder.max_rows, self.decoder.eos.tolist())
        self._first_answers.begin((self.config.dtype, self.config.full_determinism, *decoder))
        self.global_steps: int | None = None
        self._waiting: list[tuple[Request, Any, asyncio.Future]] = []
        self._arrived = asyncio.Event()
        self._loop: asyncio.Task | None = None

    def _make_decoder(self, model: Any = None) -> Decoder:
        return Decoder(model or self._load_model(), self._eos_ids(), max_rows=self.config.max_num_seqs)

    def _compute(self, function: Callable, *args: Any) -> asyncio.Future:
        return asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    def _load_model(self):
        from transformers import AutoModelForCausalLM

        # The real weights, although the first sync overwrites them: a server that has missed its sync then says
        # something sensible, and the log-prob gap shows it.
        return AutoModelForCausalLM.from_pretrained(
            self.model_config.local_path,
            config=self.model_config.hf_config,
            dtype=getattr(torch, self.config.dtype),
            attn_implementation="sdpa",
            trust_remote_code=self.model_config.trust_remote_code,
        ).to(self._device)

    def _eos_ids(self) -> set[int]:
        return end_tokens(self.tokenizer, self.model_config.generation_config)

    # ---- generation -------------------------------------------------------------------------------------------

    async def generate(
        self, prompt_ids: list[int], sampling_params: dict[str, Any], request_id: str, **kwargs: Any
    ) -> TokenOutput:
        """One response. See verl's LLMServerClient.generate for the call."""
        if any(kwargs.get(key) for key in ("image_data", "video_data", "audio_data")):
            raise ValueError("rollout.name=hf serves text models only")
        params = dict(sampling_params)
        stop = params.pop("stop", None) or []
        params["stop_token_sequences"] = [
            self.tokenizer.encode(text, add_special_tokens=False) for text in ([stop] if isinstance(stop, str) else stop)
        ]
        request = to_request(list(prompt_ids), params, self.config)
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._serve())
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((request, sampling_params.get("batch"), future))
        self._arrived.set()
        return self._output(await future)

    async def generate_batch(self, prompts: list[list[int]], sampling_params: list[dict]) -> list[TokenOutput]:
        """Many responses in one call: one message instead of one per response."""
        requests = [to_request(ids, params, self.config) for ids, params in zip(prompts, sampling_params, strict=True)]
        done = await self._compute(self._generate, requests)
        return [self._output(completion) for completion in done]

    def _generate(self, requests: list[Request]) -> list[Completion]:
        try:
            return self._first_answers.of(requests, self.decoder.generate)
        finally:
            if self._device.type != "cpu":
                get_torch_device().empty_cache()  # for the trainer, which has the card next

    def _output(self, completion: Completion) -> TokenOutput:
        return TokenOutput(
            token_ids=completion.token_ids,
            log_probs=completion.log_probs,
            stop_reason=completion.stop_reason,
            extra_fields={"global_steps": self.global_steps},
        )

    async def _serve(self) -> None:
        while True:
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            await self._gather()
            taken, self._waiting = self._waiting, []
            taken.sort(key=lambda item: item[1] or ("", 0, 0))
            try:
                done = await self._compute(self._generate, [request for request, _, _ in taken])
            except Exception as error:  # handed to every caller, who then reports it: nothing is swallowed
                for _, _, future in taken:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, _, future), completion in zip(taken, done, strict=True):
                if not future.done():
                    future.set_result(completion)

    async def _gather(self) -> None:
        """Returns once every declared batch is whole, or, for requests without one, when no more come in."""
        count, quiet = -1, 0.0
        while True:
            batches: dict[str, tuple[int, int]] = {}
            for _, batch, _ in self._waiting:
                if batch is not None:
                    batches[batch[0]] = (batches.get(batch[0], (0, 0))[0] + 1, batch[1])
            if batches and all(here >= size for here, size in batches.values()):
                return
            quiet = 0.0 if len(self._waiting) != count else quiet + _QUIET_SECONDS
            if (not batches and quiet > 0) or quiet > _STALLED_SECONDS:
                return
            count = len(self._waiting)
            await asyncio.sleep(_QUIET_SECONDS)

    # ---- weights and control ----------------------------------------------------------------------------------

    async def load_weights(self, weights: dict[str, np.ndarray], global_steps: int | None):
        """Copies new weights in. The arrays lie in Ray's shared memory."""
        await self._compute(self._copy_weights, weights)
        if global_steps is not None:
            self.global_steps = global_steps

    def _copy_weights(self, weights: dict[str, np.ndarray]) -> None:
        own = dict(self.decoder.model.state_dict())
        unknown = sorted(set(weights) - set(own))
        if unknown:
            raise RuntimeError(f"the rollout's model does not have the trainer's weights {unknown[:3]}")
        written = {own[name].data_ptr() for name in weights}  # tied weights have two names
        missing = sorted(name for name, tensor in own.items() if tensor.data_ptr() not in written)
        if missing:
            raise RuntimeError(f"the trainer has not sent the rollout's weights {missing[:3]}")
        with torch.no_grad():
            for name, array in weights.items():
                own[name].copy_(torch.from_numpy(array))
        self._first_answers.load(weights)

    async def keep_first_answers(self) -> None:
        """Further runs may come to this process (host.py)."""
        self._first_answers.on = True

    async def renew(self, config: RolloutConfig, model_config: dict) -> None:
        """Become the server of another run, in this process (host.py). A model of the same settings is kept:
        the run's first weight sync writes all of its weights."""
        if self._loop is not None:
            self._loop.cancel()
        self._fresh.restore()
        self._set_up(config, model_config)

    async def set_global_steps(self, global_steps: int) -> None:
        self.global_steps = global_steps

    async def sleep(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to free: the key-value cache of a batch dies with it, and the weights stay."""

    wake_up = clear_kv_cache = release_kv_cache = resume_kv_cache = sleep
    resume_generation = start_profile = stop_profile = sleep

    async def abort_all_requests(self, reject_request: bool = False) -> None:
        for _, _, future in self._waiting:
            future.cancel()
        self._waiting.clear()


def start_server(config: Any, model_config: Any, replica_rank: int = 0) -> ray.actor.ActorHandle:
    """The named server actor of a replica, started if there is none yet; it loads in its own time.

    The launcher calls this as soon as Ray is up, so that the server's process starts beside the trainer's set-up instead
    of after it: five seconds on two cores.
    """
    options: dict[str, Any] = {"num_cpus": 0, "max_concurrency": 1000, "get_if_exists": True}
    if get_device_name() != "cpu":
        # Ray hides every GPU from an actor that asks for none; this one shares the training worker's.
        options["runtime_env"] = {"env_vars": dict.fromkeys(get_platform().ray_noset_envvars(), "1")}
    return (
        ray.remote(HFServer)
        .options(name=server_name(replica_rank), **options)
        .remote(config, model_config, threads=cores.threads(), number=replica_rank)
    )


class HFReplica(RolloutReplica):
    """One HFServer per replica: one process whatever the parallel sizes say."""

    async def launch_servers(self) -> None:
        server = start_server(self.config, self.model_config, self.replica_rank)
        await server.set_global_steps.remote(0)  # returns once the actor is up, or raises what stopped it
        self.servers = [server]
        self._server_handle, self._server_address = server, f"hf://{server_name(self.replica_rank)}"


class HFWeightSync(BaseRollout):
    """Lives in the training worker; sends its weights to the server after every update."""

    def __init__(self, config: RolloutConfig, model_config: HFModelConfig, device_mesh: Any):
        super().__init__(config, model_config, device_mesh)
        self._server = None
        self._replica_rank = int(os.environ.get("RANK", 0))

    async def resume(self, tags: list[str]) -> None: ...

    async def release(self) -> None: ...

    @torch.no_grad()
    async def update_weights(
        self,
        weights: Generator[tuple[str, torch.Tensor], None, None],
        wire_format: str = "named_tensors",
        global_steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        if wire_format != "named_tensors":
            raise NotImplementedError(f"rollout.name=hf takes named_tensors only, not {wire_format!r}")
        named = [(name, tensor.detach()) for name, tensor in weights]  # all held: no two of them share an address by chance
        sent: dict[tuple[int, torch.Size], str] = {}
        for name, tensor in named:  # tied weights have two names and go once
            sent.setdefault((tensor.data_ptr(), tensor.shape), name)
        once = set(sent.values())
        arrays = {name: tensor.float().cpu().contiguous().numpy() for name, tensor in named if name in once}
        if self._server is None:
            self._server = ray.get_actor(server_name(self._replica_rank))
        # Ray copies the arrays into shared memory, where the server reads them.
        await self._server.load_weights.remote(arrays, global_steps)
