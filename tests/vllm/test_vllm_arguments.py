"""vLLM's own argument parser takes what verl would pass it; on a CPU it is the same but for a declared few."""

import dataclasses
import inspect

import pytest

from Verl.adapter import interface
from Verl.errors import UserError
from Verl.study import vllm_arguments
from Verl.study.shipped import prepare

pytestmark = pytest.mark.vllm
SCRIPT = "run_grpo_0032_8_qwen0.5b_gsm.sh"
CONTEXT = 32768
UNDERSTOOD = ("gpu_memory_utilization", "dtype", "max_num_seqs", "load_format", "enforce_eager", "logprobs_mode")
ON_A_GPU = ["trainer.device=cuda"]


@pytest.mark.parametrize("target, parameters, why", interface.names(interface.RELIED_ON_WITH_VLLM))
def test_verl_still_has(target, parameters, why):
    found = interface.resolve(target)
    if parameters:
        given = list(inspect.signature(found).parameters)
        assert given[: len(parameters)] == list(parameters), f"{target}{given}: {why}"


@pytest.mark.parametrize("name", ["dispatch_cpu_unquantized_gemm", "device_type"])
def test_what_is_replaced_is_there(name):
    for target in interface.REPLACED[name].targets:
        interface.resolve(target)


def test_every_script_for_a_gpu_is_accepted_and_understood():
    checked = vllm_arguments.check(vllm_arguments.gpu_scripts())
    assert len(checked) >= 132  # 22 arms for six pairs
    for run, arguments in checked:
        rollout = run.config.actor_rollout_ref.rollout
        for name in UNDERSTOOD:
            assert getattr(arguments, name) == rollout[name], (run.script, name)
        assert arguments.tensor_parallel_size == rollout.tensor_model_parallel_size == 1
        assert arguments.enable_sleep_mode is True and arguments.max_model_len >= 512 + 1024


@pytest.mark.parametrize(
    "override",
    [
        "+actor_rollout_ref.rollout.engine_kwargs.vllm.no_such_thing=1",
        "actor_rollout_ref.rollout.dtype=no_such_type",
        "actor_rollout_ref.rollout.scheduling_policy=no_such_policy",
    ],
)
def test_what_vllm_does_not_know_is_rejected(override):
    with pytest.raises(UserError, match="vLLM rejects what verl would pass.*no.such"):
        vllm_arguments.engine_arguments(prepare(SCRIPT, [*ON_A_GPU, override]).config, CONTEXT)


def test_a_cpu_run_passes_the_same_but_for_a_declared_few():
    """What tells that a run on a CPU says something about the GPU path."""
    gpu = vllm_arguments.engine_arguments(prepare(SCRIPT, ON_A_GPU).config, CONTEXT)
    on_a_cpu = ["trainer.device=cpu", "actor_rollout_ref.rollout.name=vllm"]
    cpu = vllm_arguments.engine_arguments(prepare(SCRIPT, on_a_cpu).config, CONTEXT)
    differing = {f.name for f in dataclasses.fields(gpu) if getattr(gpu, f.name) != getattr(cpu, f.name)}
    assert differing == {
        "dtype", "load_format", "max_num_seqs", "gpu_memory_utilization",  # Verl/trainer/config/device
        "worker_extension_cls", "enable_sleep_mode", "enforce_eager", "kv_cache_memory_bytes",  # Verl/cpu/vllm_server.py
    }  # fmt: skip


def test_heads_that_vllm_has_no_cpu_kernel_for_are_refused():
    from transformers import Qwen2Config

    from Verl.cpu.vllm_server import check_head_size

    check_head_size(Qwen2Config(hidden_size=128, num_attention_heads=4))
    with pytest.raises(UserError, match="heads of size 16"):
        check_head_size(Qwen2Config(hidden_size=128, num_attention_heads=8))
