"""Registration with verl, imported by `import verl` in every process of a run.

verl 0.9.1 imports the modules named in VERL_USE_EXTERNAL_MODULES at the end of its own `__init__` (verl/__init__.py).
The launcher sets that variable to this module and Ray hands it to the workers, so that each of them knows the CPU
platform and the `hf` rollout without a change to verl; on a CPU, also where `vllm` is. Heavy imports stay inside the
loaders: most processes of a run never build a model.
"""

import os

from verl.workers.rollout.base import _ROLLOUT_REGISTRY
from verl.workers.rollout.replica import RolloutReplicaRegistry

from Verl.adapter import platform  # noqa: F401  registers the platform "cpu"
from Verl.adapter.vllm_cpu_name import answer_to_vllm


def _load_hf_replica():
    from Verl.adapter.hf_rollout import HFReplica

    return HFReplica


RolloutReplicaRegistry.register("hf", _load_hf_replica)
_ROLLOUT_REGISTRY[("hf", "async")] = "Verl.adapter.hf_rollout.HFWeightSync"


def _load_vllm_replica():
    from Verl.adapter.vllm_cpu import CPUReplica

    return CPUReplica


if os.environ.get("VERL_PLATFORM") == "cpu":
    answer_to_vllm()
    RolloutReplicaRegistry.register("vllm", _load_vllm_replica)
