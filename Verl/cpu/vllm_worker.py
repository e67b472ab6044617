"""What goes into vLLM's worker process on a CPU: verl's own extension, which takes new weights, and one repair.

vLLM's CPU linear layers hand their weight to oneDNN (or to an AMX kernel) after loading and throw the Parameter away:
`process_weights_after_loading` leaves `torch.empty(0)` in its place (vllm/model_executor/layers/utils.py,
`dispatch_cpu_unquantized_gemm`). verl updates weights in place, as on a GPU, and finds nothing to write to. So here the
layers keep their Parameter and multiply with torch's own `linear`. From there on loading and updating run the very code of
the GPU path.
"""

from contextlib import ExitStack
from typing import Any

import torch
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension
from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

from Verl.adapter.interface import replaced

_FOR_GOOD = ExitStack()  # for as long as this process lives


def keep_parameters(layer: torch.nn.Module, remove_weight: bool) -> None:
    """Stands in for vLLM's `dispatch_cpu_unquantized_gemm`: the layer goes on using `layer.weight`."""
    if layer.weight.ndim == 2:
        layer.cpu_linear = torch.nn.functional.linear
    else:
        # Convolutions and mixtures of experts, which vLLM does not repack here.
        dispatch_cpu_unquantized_gemm(layer, remove_weight)


class CPUWorkerExtension(vLLMColocateWorkerExtension):
    """Named to vLLM as `worker_extension_cls`; made before the model is loaded."""

    def __new__(cls, **kwargs: Any):
        _FOR_GOOD.enter_context(replaced(dispatch_cpu_unquantized_gemm=keep_parameters))
        return super().__new__(cls, **kwargs)
