"""What goes into vLLM's worker process on a CPU: verl's own extension, which takes new weights, and one repair.

vLLM's CPU linear layers hand their weight to oneDNN (or to an AMX kernel) after loading and throw the Parameter away:
`process_weights_after_loading` leaves `torch.empty(0)` in its place (vllm/model_executor/layers/utils.py,
`dispatch_cpu_unquantized_gemm`). verl updates weights in place, as on a GPU, and finds nothing to write to. So the layers
are told to keep their Parameter and to multiply with torch's own `linear`. From there on loading and updating run the
very code of the GPU path.
"""

from typing import Any

import torch
import vllm.model_executor.layers.utils as layer_utils
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension

_vllm_dispatch = layer_utils.dispatch_cpu_unquantized_gemm


def keep_parameters(layer: torch.nn.Module, remove_weight: bool) -> None:
    """Stands in for vLLM's `dispatch_cpu_unquantized_gemm`: the layer goes on using `layer.weight`."""
    if layer.weight.ndim == 2:
        layer.cpu_linear = torch.nn.functional.linear
    else:
        _vllm_dispatch(layer, remove_weight)  # convolutions and mixtures of experts, which vLLM does not repack here


class CPUWorkerExtension(vLLMColocateWorkerExtension):
    """Named to vLLM as `worker_extension_cls`; made before the model is loaded."""

    def __new__(cls, **kwargs: Any):
        layer_utils.dispatch_cpu_unquantized_gemm = keep_parameters
        return super().__new__(cls, **kwargs)
