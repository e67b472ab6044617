"""The training worker on a CPU: verl's own worker and fsdp2 engine, with CPU fixes applied and unnecessary work removed.

1. verl 0.9.1 asks torch for the process-group backend "cpu:gloo,<device>:<backend>" (verl/utils/distributed.py). On a
   CPU both halves name the same device, which torch rejects, so the group is opened before verl tries to; verl then
   finds it and leaves it alone.
2. The fsdp2 engine puts the reference model under CPUOffloadPolicy(pin_memory=True) to save GPU memory
   (verl/workers/engine/fsdp/transformer_impl.py). Pinning needs an accelerator, and the model is in main memory
   already, so the policy is left out.
3. Forward and backward passes go over micro batches that hold a shared prompt once (shared_prefix.py). verl 0.9.1 has a
   prefix grouper of its own only in its older trainer (verl/trainer/ppo/ray_trainer.py), so on a GPU nothing is shared.
4. Where the update takes the old log-probabilities from itself (Verl/adapter/own_log_probs.py), the reference's are computed
   in the same call: a step's data come to this process once instead of three times.
5. With one process no gradient is reduced (one_process.py).
6. verl collects garbage at every hand-over of weights, for a GPU's memory (verl/utils/memory_utils.py). Half a million objects
   of imported modules, which never become garbage, are taken out of its sight: 1 ms instead of 0.1 s or more.
"""

import gc
import hashlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from tensordict import NonTensorData, TensorDict
from torch.distributed.tensor import DTensor
from verl.single_controller.base.decorator import Dispatch, make_nd_compute_dataproto_dispatch_fn, register
from verl.utils import tensordict_utils as tu
from verl.utils.py_functional import temp_env_var
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp import transformer_impl
from verl.workers.utils.padding import response_from_nested

from Verl import cores
from Verl.adapter import lora, own_log_probs
from Verl.adapter.interface import replaced
from Verl.adapter.nested import nested, places, rows_of
from Verl.adapter.process_state import ProcessState
from Verl.adapter.worker import PolicyWorker
from Verl.cpu import one_process, shared_prefix
from Verl.cpu.batch_fields import FOR_THE_LOSS, complete
from Verl.trainer import own_ray

logger = logging.getLogger(__name__)

# What a micro batch is made of: the rest of a step's fields would only be copied along.
_FIELDS = (*FOR_THE_LOSS, "input_ids", "loss_mask")
REFERENCE_SECONDS = "seconds of the reference's pass"
_DISABLED = "DISABLE_WORKER_INIT"  # verl's: a worker within a worker's process leaves the process as it is


@EngineRegistry.register(model_type="language_model", backend=["fsdp2"], device=["cpu"])
class CPUEngine(transformer_impl.FSDPEngineWithLMHead):
    """verl's fsdp2 engine for a language model, on a CPU. Set fp32 throughout: bf16 is emulated on most CPUs."""

    shares_prefixes = False
    hands_over = False  # gradients, instead of reducing them over one process
    own: own_log_probs.Collector | None = None

    def _build_fsdp_module(self, module):
        with replaced(CPUOffloadPolicy=lambda **kwargs: None):
            module = super()._build_fsdp_module(module)
        # With weights in another type than they are reduced in, FSDP2 keeps gradients in a place of its own.
        types = self.engine_config.mixed_precision or {}
        one_type = types.get("param_dtype", "bf16") == types.get("reduce_dtype", "fp32")
        self.hands_over = one_process.is_alone() and one_type
        if self.hands_over:
            one_process.keep_gradients(module)
        return module

    def _gradient_sync_context(self, *, is_last_micro_batch: bool):
        if self.hands_over:
            return nullcontext()
        return super()._gradient_sync_context(is_last_micro_batch=is_last_micro_batch)

    def optimizer_step(self):
        if self.hands_over:
            one_process.hand_over_gradients(self.module)
        return super().optimizer_step()

    def get_per_tensor_param(self, **kwargs):
        """verl's contract: name and whole tensor of every weight, adapters merged, and no LoRA settings. A shard that is the
        whole tensor needs no gathering, which would copy it."""
        settings = getattr(self.module, "peft_config", None)
        if not one_process.is_alone() and not settings:
            return super().get_per_tensor_param(**kwargs)
        state = transformer_impl.convert_weight_keys(self.module.state_dict(), self.module)
        if settings:
            adapter = settings["default"]
            whole = lora.merged({name: _whole(value) for name, value in state.items()}, adapter.lora_alpha / adapter.r).items()
        else:
            whole = ((name, _whole(value)) for name, value in state.items())
        return transformer_impl.unfuse_moe_params(whole, self.model_config.hf_config.model_type), None

    def share_prefixes(self, wanted: str) -> None:
        """Turns sharing on where the model allows it.

        Args:
            wanted: "auto", "on" (an error where it can't be) or "off".

        Raises:
            ValueError: it was asked for and can't be.
        """
        reason = shared_prefix.why_not(self.module, self.module.config)
        if reason and wanted == "on":
            raise ValueError(f"actor_rollout_ref.prefix_sharing=on is not possible for this model: {reason}")
        self.shares_prefixes = wanted != "off" and reason is None
        logger.warning("prefix sharing is %s", "on" if self.shares_prefixes else f"off: {reason or 'switched off'}")

    def forward_backward_batch(self, data: TensorDict, loss_function, forward_only=False):
        if not self.can_share(data):
            return super().forward_backward_batch(data, loss_function, forward_only)
        with replaced(prepare_micro_batches=_grouped_micro_batches):
            return super().forward_backward_batch(data, loss_function, forward_only)

    def can_share(self, data: TensorDict) -> bool:
        """verl asks for some passes that need every token's logits (distillation, sums of squares): those go its way."""
        special = ("distillation_use_topk", "calculate_sum_pi_squared", "use_fused_kernels")
        return (
            self.shares_prefixes
            and not any(tu.get_non_tensor_data(data=data, key=key, default=False) for key in special)
            and not isinstance(data["temperature"], torch.Tensor)
            and tu.get_non_tensor_data(data=data, key="use_dynamic_bsz", default=self.engine_config.use_dynamic_bsz)
        )

    def forward_step(self, micro_batch: TensorDict, loss_function, forward_only):
        """verl's contract: the loss to call backward on, and a dictionary of model output, loss and metrics."""
        if not self.can_share(micro_batch):
            return super().forward_step(micro_batch, loss_function, forward_only)
        layout = _layout(micro_batch)
        logits_KV = shared_prefix.forward_logits(self.module, self.module.config, layout)
        if micro_batch["temperature"] != 1.0:
            logits_KV = logits_KV / micro_batch["temperature"]
        log_prob_T, log_probs_KV = shared_prefix.response_log_probs(logits_KV, layout)
        output = {"log_probs": _in_sequences(log_prob_T, micro_batch)}
        if tu.get_non_tensor_data(data=micro_batch, key="calculate_entropy", default=False):
            output["entropy"] = _in_sequences(shared_prefix.entropy(log_probs_KV, layout), micro_batch)
        if loss_function is None:
            return torch.tensor(1.0), {"model_output": output, "loss": 1.0, "metrics": {}}
        if "old_log_probs" not in micro_batch:
            self.own.add(micro_batch, log_prob_T.detach(), shared_prefix.entropy(log_probs_KV.detach(), layout))
        loss, metrics = loss_function(
            model_output=output, data=micro_batch, dp_group=self.get_data_parallel_group()
        )
        return loss, {
            "model_output": transformer_impl.detach_tree(output), "loss": loss.detach().item(), "metrics": metrics
        }  # fmt: skip


def _whole(value: torch.Tensor) -> torch.Tensor:
    if not isinstance(value, DTensor):
        return value
    return value.to_local() if one_process.is_alone() else value.full_tensor()


def _grouped_micro_batches(data: TensorDict, dp_group=None, **kwargs) -> tuple[list[TensorDict], list[list[int]]]:
    """In the place of verl's `prepare_micro_batches`: the same answer, prompts kept together."""
    rows = shared_prefix.micro_batches(
        [ids.tolist() for ids in rows_of(data["prompts"])],
        data["responses"].offsets().diff().tolist(),
        data["max_token_len_per_gpu"],
    )
    # Fields of the micro batch, and what is the same for all rows (temperature, sizes, switches). Each field is taken apart
    # once: verl's own selection does it once per micro batch.
    fields = {key: rows_of(value) for key, value in data.items() if key in _FIELDS}
    same = {key: value for key, value in data.items() if isinstance(value, NonTensorData)}
    batches = []
    for indices in rows:
        chosen = {key: nested([values[row] for row in indices]) for key, values in fields.items()}
        batches.append(TensorDict({**chosen, **same}, batch_size=len(indices)))
        tu.assign_non_tensor_data(batches[-1], own_log_probs.ROWS, indices)
    return batches, rows


def _layout(micro_batch: TensorDict) -> shared_prefix.Layout:
    prompts, responses = rows_of(micro_batch["prompts"]), rows_of(micro_batch["responses"])
    groups = shared_prefix.group_by_prompt([ids.tolist() for ids in prompts])
    prompt_of = [0] * len(prompts)
    for number, rows in enumerate(groups.values()):
        for row in rows:
            prompt_of[row] = number
    return shared_prefix.Layout.of([prompts[rows[0]] for rows in groups.values()], responses, prompt_of)


def _in_sequences(value_T: torch.Tensor, micro_batch: TensorDict) -> torch.Tensor:
    """verl's form of a model output: nested (prompt + response) per row, where place t holds the value of token t + 1."""
    offsets, responses = micro_batch["input_ids"].offsets(), micro_batch["responses"].offsets().diff()
    place_T = places(responses)[1] + torch.repeat_interleave(offsets[1:] - 1 - responses, responses)
    whole = value_T.new_zeros(int(offsets[-1])).index_copy(0, place_T, value_T)
    return torch.nested.nested_tensor_from_jagged(whole, offsets)


def _store(size: int) -> torch.distributed.Store | None:
    """Where the processes of a group find each other. torch's own (None) listens on every interface, without a password."""
    if size == 1:
        return torch.distributed.HashStore()
    folder = own_ray.private_folder()
    return torch.distributed.FileStore(str(folder / f"group-{os.environ['MASTER_PORT']}"), size) if folder else None


class CPUWorker(PolicyWorker):
    """Actor, reference and rollout adapter in one process, as on a GPU."""

    _fresh: ProcessState | None = None  # of the process, before its first run

    def __init__(self, *args: Any, **settings: Any):
        if CPUWorker._fresh is None:
            CPUWorker._fresh = ProcessState.now()
        super().__init__(*args, **settings)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self):
        if not gc.get_freeze_count():  # once in a process: what a host's later runs leave is garbage
            gc.freeze()
        torch.set_num_threads(cores.threads())
        if not torch.distributed.is_initialized():
            rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
            torch.distributed.init_process_group("gloo", rank=rank, world_size=size, store=_store(size))
        super().init_model()
        for part in (self.actor, self.ref):
            if part is not None:
                part.engine.share_prefixes(self.config.get("prefix_sharing", "auto"))

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def renew(self, **settings: Any) -> None:
        """Become the worker of another run: as if constructed with `settings`, in this process (host.py)."""
        self.actor = self.ref = self.rollout = None  # the models of the run before go first
        gc.collect()
        CPUWorker._fresh.restore()
        os.environ.pop(_DISABLED, None)  # was there when the process made its first worker
        with temp_env_var(_DISABLED, "1"):
            self.__init__(**settings)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def weights_digest(self) -> str:
        """SHA-256 over the names and bytes of the actor's weights."""
        digest = hashlib.sha256()
        for name, value in self.actor.engine.module.state_dict().items():
            local = value.to_local() if isinstance(value, DTensor) else value
            digest.update(name.encode() + local.detach().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="ref"))
    def compute_ref_log_prob(self, data: TensorDict) -> TensorDict:
        complete(data)
        return super().compute_ref_log_prob(data)

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def compute_log_prob(self, data: TensorDict) -> TensorDict:
        complete(data)
        return super().compute_log_prob(data)

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def update_actor(self, data: TensorDict) -> TensorDict:
        complete(data)
        began, takes_own = time.perf_counter(), "old_log_probs" not in data
        if takes_own and self.config.actor.use_kl_loss and "ref_log_prob" not in data:
            data["ref_log_prob"] = _responses_of(self._reference_pass(data)["log_probs"], data)
        seconds = time.perf_counter() - began
        output = super().update_actor(data)
        if takes_own:
            self._own_metrics[REFERENCE_SECONDS] = seconds
        return output

    @contextmanager
    def _collecting(self, data: TensorDict, collector: own_log_probs.Collector) -> Iterator[None]:
        """A pass over shared prompts hands its log-probabilities over itself, before they are padded for verl's loss."""
        engine = self.actor.engine
        if not engine.can_share(data):
            with super()._collecting(data, collector):
                yield
            return
        engine.own = collector
        try:
            yield
        finally:
            engine.own = None

    def _reference_pass(self, data: TensorDict) -> TensorDict:
        """As verl's trainer asks for it (verl/trainer/ppo/v1/trainer_base.py): of a policy with adapters the reference is
        the policy without them."""
        requested = data.select(*[key for key in (*_FIELDS, "position_ids") if key in data])
        tu.assign_non_tensor(requested, calculate_entropy=False, compute_loss=False, temperature=data["temperature"])
        tu.assign_non_tensor(requested, no_lora_adapter=self.ref is None)
        return (self.ref or self.actor).infer_batch(requested)


def _responses_of(output: torch.Tensor, data: TensorDict) -> torch.Tensor:
    return response_from_nested(output, data["response_mask"])
