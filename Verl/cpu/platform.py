"""A CPU platform for verl (verl.plugin.platform is verl's own extension point for new hardware).

Chosen by VERL_PLATFORM=cpu. Ray still needs an accelerator resource to place workers on, so a CPU run declares a
logical GPU for each of its processes (`ray.init(num_gpus=1)`); nothing ever looks for a real one.
"""

from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry


class _Properties:
    """The part of torch.cuda's device properties that verl reads when it logs memory."""

    name = "cpu"
    total_memory = 0


class CPUDeviceModule(ModuleType):
    """`torch.cpu`, plus the memory functions of `torch.cuda` that verl calls and torch.cpu lacks.

    The memory numbers are 0 rather than the process's RSS: verl logs them as *device* memory, and a CPU run has none.
    Peak memory of the process tree is measured by the trainer instead (`perf/peak_memory_gb`).
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    def empty_cache(self) -> None: ...

    def ipc_collect(self) -> None: ...

    def reset_peak_memory_stats(self, device: Any = None) -> None: ...

    def memory_allocated(self, device: Any = None) -> int:
        return 0

    memory_reserved = max_memory_allocated = max_memory_reserved = memory_allocated

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        return 0, 0

    def get_device_name(self, device: Any = None) -> str:
        return "cpu"

    def get_device_properties(self, device: Any = None) -> _Properties:
        return _Properties()

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        # verl's checkpoint manager restores the device's state after the CPU's: here they are one and the same.
        torch.set_rng_state(state)


_DEVICE_MODULE = CPUDeviceModule("Verl.cpu.platform.cpu")


@PlatformRegistry.register(platform="cpu")
class CPUPlatform(PlatformBase):
    """See PlatformBase for the contract of each method."""

    device_name = "cpu"
    vendor_name = "generic"
    device_module = _DEVICE_MODULE

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        # Never chosen by auto-detection: where verl finds a GPU it must keep it. VERL_PLATFORM=cpu asks for this one.
        return False

    def current_device(self) -> str:
        # verl passes this to tensor.to(...); an index would mean cuda:<index> there.
        return "cpu"

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None: ...

    def synchronize(self, device_index: int | None = None) -> None: ...

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str):
        yield

    def profiler_start(self) -> None: ...

    def profiler_stop(self) -> None: ...

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None
