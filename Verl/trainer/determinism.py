"""`determinism=full`: everything that verl 0.9.1 and vLLM need for two GPU runs of one seed to be equal to the byte.

verl has a switch for each of actor, reference and rollout (base.yaml sets all three), and three variables that its own
launcher exports before Ray starts (verl/trainer/main_ppo.py): VERL_FULL_DETERMINISM, VLLM_BATCH_INVARIANT (a response does not
depend on the responses that are drawn beside it) and PYTHONHASHSEED. It says that its V1 trainer can't be deterministic,
because rollouts come in the order in which they end; ours are sorted (Verl/adapter/replay_buffer.py), and each request has
a seed and a number of its own (Verl/adapter/agent_loop.py).
"""

import os
import subprocess

from omegaconf import DictConfig, OmegaConf

from Verl.errors import UserError
from Verl.trainer.settings import gpu_present

SWITCHES = ("actor.fsdp_config.full_determinism", "ref.fsdp_config.full_determinism", "rollout.full_determinism")
_ONE_OF_THEM = ("VERL_FULL_DETERMINISM", "VLLM_BATCH_INVARIANT")
_VLLM_NEEDS = 8.0  # compute capability, of vLLM 0.24.0's batch-invariant kernels


def environment(config: DictConfig) -> dict[str, str]:
    """Variables for this process and, through Ray, for every worker."""
    if config.determinism != "full":
        return {}
    # cuBLAS reads its own before the first call; verl's workers set it as well, but only once they build a model.
    return dict.fromkeys(_ONE_OF_THEM, "1") | {"PYTHONHASHSEED": str(config.seed), "CUBLAS_WORKSPACE_CONFIG": ":16:8"}


def check_determinism(config: DictConfig) -> None:
    """Refuse an unknown word, a part of it without the rest, and what would undo it.

    Raises:
        UserError: with key or variable, value and what to do.
    """
    requested = config.determinism
    if requested not in (None, "full"):
        raise UserError(f"determinism={requested} is unknown: choose full, or null (as fast as it goes)")
    values = {switch: OmegaConf.select(config.actor_rollout_ref, switch) for switch in SWITCHES}
    for switch, value in values.items():
        if value is not (requested == "full"):
            raise UserError(
                f"actor_rollout_ref.{switch}={str(value).lower()} is one part of determinism: leave it out, and "
                f"{'set determinism=full, which sets all parts' if value else 'determinism=full sets it, as all parts'}"
            )
    if config.trainer.device != "cuda":
        return
    for name in _ONE_OF_THEM:
        if (os.environ.get(name, "0") == "1") is not (requested == "full") and name in os.environ:
            raise UserError(
                f"the environment has {name}={os.environ[name]}, which determinism={requested or 'null'} contradicts: "
                "unset it; determinism=full sets it with all that belongs to it"
            )
    if requested != "full":
        return
    if (workers := config.actor_rollout_ref.rollout.agent.num_workers) != 1:
        raise UserError(
            f"actor_rollout_ref.rollout.agent.num_workers={workers} and determinism=full exclude each other: requests are "
            "numbered by one worker; leave it at 1"
        )


def check_gpu(config: DictConfig) -> None:
    """Refuse vLLM's batch-invariant mode on a GPU that is here and too old for it."""
    if config.determinism != "full" or config.actor_rollout_ref.rollout.name != "vllm" or not gpu_present():
        return
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        found = min(float(text) for text in subprocess.run(query, capture_output=True, text=True, check=True).stdout.split())
    except (OSError, subprocess.CalledProcessError, ValueError):
        return  # the driver does not say
    if found < _VLLM_NEEDS:
        raise UserError(
            f"determinism=full needs a GPU of compute capability {_VLLM_NEEDS} for vLLM, and this one has {found}: take "
            "actor_rollout_ref.rollout.name=hf, or leave determinism out"
        )
