"""GPU memory of a run, in GiB, by arithmetic: an upper bound from the model's sizes and the run's settings.

P parameters, L layers, h hidden, i intermediate, V vocabulary, K key-value heads of size d, T tokens of a micro batch
(ppo_micro_batch_size_per_gpu x (prompt + response)). Bytes:

    weights      4 P     fp32 master weights (verl's fsdp_config.model_dtype)
    gradients    4 P
    optimizer    8 P     AdamW, two fp32 moments
    gathered     2 P     bf16 copies that the forward pass computes with (all layers at once: FSDP frees them sooner)
    logits      14 T V   2 in bf16, and three fp32 copies: of the logits, their softmax, and its product or gradient
    activations  2 T L h + 2 T (8 h + 3 i)   one checkpoint per layer, and the inside of the layer at hand
    cache        4 L K d per token: keys and values in bf16
    vLLM         gpu_memory_utilization x the GPU's memory: its weights (2 P) and, in what is left, the cache
    hf           rollout.name=hf: its weights (2 P), those that it is handed (4 P), the cache of R rows (`max_num_seqs` at most)
                 twice, as it is laid anew, and 16 R V for drawing; while the trainer computes, its weights stay

verl's synchronous trainer alternates (verl 0.9.1, workers/engine_workers.py, update_weights): while vLLM generates,
weights and optimizer stay on the GPU unless `param_offload` and `optimizer_offload` move them; while the trainer
computes, vLLM sleeps. The peak is the larger of the two.

On several GPUs (data parallel, FSDP) weights, gradients and optimizer are shared out evenly; a micro batch is each one's own.
With LoRA (`actor_rollout_ref.model.lora_rank` r) gradients and optimizer are those of the adapters, r (in + out) for each
adapted layer, and the weights have the adapters besides.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from Verl.trainer.lora_checks import adapted_layers
from Verl.trainer.ppo.conditions import rewards_per_query

GIB = 2**30


@dataclass(frozen=True)
class ModelSize:
    """A decoder's sizes, as its config.json has them (Llama's layout: gated MLP, RMS norms)."""

    title: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    context: int
    biases: str | None = None  # "qkv": on the query, key and value projections (Qwen2)
    qk_norm: bool = False  # norms over whole queries and keys (OLMo 2)

    @property
    def parameters(self) -> int:
        """V h (twice if not tied) + L (2 h H d + 2 h K d + 3 h i + 2 h + what biases and norms add) + h."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        layer = 2 * self.hidden * q + 2 * self.hidden * kv + 3 * self.hidden * self.intermediate + 2 * self.hidden
        layer += (q + 2 * kv) * (self.biases == "qkv") + (q + kv) * self.qk_norm
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + self.layers * layer + self.hidden

    def adapters(self, rank: int, layers: Collection[str]) -> int:
        """Parameters of LoRA adapters of these linear layers: L r (in + out), each."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        ends = {"q_proj": self.hidden + q, "o_proj": self.hidden + q, "k_proj": self.hidden + kv, "v_proj": self.hidden + kv}
        return self.layers * rank * sum(ends.get(layer, self.hidden + self.intermediate) for layer in layers)

    @property
    def cache_bytes(self) -> int:
        """Of one token, keys and values in bf16."""
        return 4 * self.layers * self.kv_heads * self.head_dim

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> ModelSize:
        return cls(**entry)


@dataclass(frozen=True)
class Memory:
    """GiB of each part, of both phases, and what is left of the GPU. `at_once`: full-length sequences in the cache."""

    weights: float
    gradients: float
    optimizer: float
    gathered: float
    logits: float
    activations: float
    vllm: float
    cache: float
    at_once: int
    generate: float
    update: float
    total: float

    @property
    def peak(self) -> float:
        return max(self.generate, self.update)

    @property
    def fits(self) -> bool:
        return self.peak <= self.total and self.at_once >= 1

    def as_dict(self) -> dict[str, float]:
        return {**asdict(self), "peak": self.peak}


def memory(size: ModelSize, config: DictConfig, total_gib: float, reserve_gib: float) -> Memory:
    """The parts of a run's memory on one GPU of `total_gib`; `reserve_gib` (contexts, graphs) counts in both phases."""
    ours, rollout, data = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout, config.data
    parameters, length = size.parameters, data.max_prompt_length + data.max_response_length
    tokens = _micro_batch(config) * length
    offload = OmegaConf.select(ours, "fsdp_config")
    rank = config.actor_rollout_ref.model.lora_rank
    adapters = size.adapters(rank, adapted_layers(config)) if rank else 0
    trained = adapters if rank else parameters
    weights, gradients, optimizer = (x / gpus(config) for x in (4 * (parameters + adapters), 4 * trained, 8 * trained))
    logits = 14 * tokens * size.vocabulary
    activations = 2 * tokens * size.layers * size.hidden + 2 * tokens * (8 * size.hidden + 3 * size.intermediate)
    stays = 0
    if rollout.name == "hf":
        rows = min(rollout.max_num_seqs, -(-data.train_batch_size * rewards_per_query(config) // gpus(config)))
        cache, stays = rows * size.cache_bytes * length, 2 * parameters
        server = stays + 4 * parameters + 2 * cache + 16 * rows * size.vocabulary
    else:
        server = rollout.gpu_memory_utilization * total_gib * GIB
        cache = server - 2 * parameters - reserve_gib * GIB
    resident = weights * (not offload.param_offload) + optimizer * (not offload.optimizer_offload)
    generate = resident + max(server, weights * offload.param_offload + 2 * parameters)
    update = weights + gradients + optimizer + 2 * parameters + logits + activations + stays
    return Memory(
        *(x / GIB for x in (weights, gradients, optimizer, 2 * parameters, logits, activations, server, cache)),
        at_once=max(0, int(cache // (size.cache_bytes * length))),
        generate=generate / GIB + reserve_gib,
        update=update / GIB + reserve_gib,
        total=total_gib,
    )


def gpus(config: DictConfig) -> int:
    """Of all machines of a run."""
    return config.trainer.n_gpus_per_node * config.trainer.nnodes


def _micro_batch(config: DictConfig) -> int:
    """Sequences in the largest micro batch: of the update or of the log-probs."""
    rollout, actor = config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor
    sizes = (actor.ppo_micro_batch_size_per_gpu, rollout.log_prob_micro_batch_size_per_gpu)
    return max((int(size) for size in sizes if size), default=1)


def too_small(name: str, found: Memory) -> str | None:
    """The sentence for a run that does not fit; None if it does."""
    if found.fits:
        return None
    if found.at_once < 1:
        return (
            f"{name} does not fit by plan: vLLM's share of {found.vllm:.1f} GiB leaves no room for one sequence's cache: "
            "raise actor_rollout_ref.rollout.gpu_memory_utilization"
        )
    phase, key = (
        (
            "generating",
            "lower actor_rollout_ref.rollout.gpu_memory_utilization (vllm) or actor_rollout_ref.rollout.max_num_seqs (hf), or "
            "offload the actor",
        )
        if found.generate > found.update
        else ("updating", "lower actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu")
    )
    return f"{name} does not fit by plan: {phase} takes {found.peak:.1f} GiB of {found.total:.1f} GiB: {key}"
