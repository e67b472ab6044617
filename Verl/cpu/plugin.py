"""Registration with verl, imported by `import verl` in every process of a run on a CPU.

verl 0.9.1 imports the modules named in VERL_USE_EXTERNAL_MODULES at the end of its own `__init__` (verl/__init__.py).
The launcher sets that variable to this module (device.py) and Ray hands it to the workers, so that each of them knows the
CPU platform, the `hf` rollout and where `vllm` is without a change to verl. Heavy imports stay inside the loaders: most
processes of a run never build a model.
"""

from verl.workers.rollout.replica import RolloutReplicaRegistry

from Verl.adapter.hf import plugin  # noqa: F401  registers the rollout "hf"
from Verl.cpu import platform  # noqa: F401  registers the platform "cpu"
from Verl.cpu.vllm_name import answer_to_vllm


def _load_vllm_replica():
    from Verl.cpu.vllm_server import CPUReplica

    return CPUReplica


answer_to_vllm()
RolloutReplicaRegistry.register("vllm", _load_vllm_replica)
