"""`rollout.name=hf` on a GPU, as far as a machine without one can tell: it composes, verl takes it, it is planned for."""

import pytest

from Verl.adapter.device import device_for
from Verl.errors import UserError
from Verl.study import shipped
from Verl.trainer import settings
from Verl.trainer.memory import ModelSize, memory
from Verl.trainer.verl_checks import check_with_verl

SCRIPT, HF = "run_grpo_0032_8_qwen0.5b_gsm.sh", "actor_rollout_ref.rollout.name=hf"


def prepared(*typed):
    return shipped.prepare(SCRIPT, [HF, *typed]).config


def test_it_composes_and_verl_takes_it():
    config = prepared()
    check_with_verl(config)
    assert (config.trainer.device, config.actor_rollout_ref.rollout.name) == ("cuda", "hf")
    # verl's own agent loop with our seeds, as with vLLM; the batched one answers on a CPU.
    assert config.actor_rollout_ref.rollout.agent.agent_loop_manager_class.endswith("SeededAgentLoopManager")
    assert config.reward.num_workers == 1


def test_what_only_vllm_reads_is_refused():
    with pytest.raises(UserError, match="vllm does"):
        prepared("actor_rollout_ref.rollout.gpu_memory_utilization=0.5")


def test_every_process_learns_of_it(monkeypatch):
    monkeypatch.delenv("VERL_USE_EXTERNAL_MODULES", raising=False)
    device_for("cuda").set_environment()
    from os import environ

    assert environ["VERL_USE_EXTERNAL_MODULES"] == "Verl.adapter.hf.plugin"


def test_the_plan_reckons_with_the_servers_weights_and_cache():
    size = ModelSize.of(settings.about("model", "qwen0.5b"))
    config = prepared()
    found = memory(size, config, 39.39, 2.0)
    length = config.data.max_prompt_length + config.data.max_response_length
    assert found.cache * 2**30 == pytest.approx(256 * size.cache_bytes * length) and found.at_once == 256
    assert found.update > memory(size, shipped.prepare(SCRIPT, []).config, 39.39, 2.0).update  # its weights stay
    fewer = memory(size, prepared("actor_rollout_ref.rollout.max_num_seqs=64"), 39.39, 2.0)
    assert fewer.generate < found.generate and found.fits
