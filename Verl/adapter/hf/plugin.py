"""Registration of `rollout.name=hf` with verl, imported by `import verl` in every process of a run.

verl 0.9.1 imports the modules named in VERL_USE_EXTERNAL_MODULES at the end of its own `__init__` (verl/__init__.py). The
launcher sets that variable (Verl/adapter/device.py) and Ray hands it to the workers.
"""

from verl.workers.rollout.base import _ROLLOUT_REGISTRY
from verl.workers.rollout.replica import RolloutReplicaRegistry


def _load_replica():
    from Verl.adapter.hf.rollout import HFReplica

    return HFReplica


RolloutReplicaRegistry.register("hf", _load_replica)
_ROLLOUT_REGISTRY[("hf", "async")] = "Verl.adapter.hf.rollout.HFWeightSync"
