"""The plan against numbers worked out by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from omegaconf import OmegaConf
from study_helpers import write_final_answers

from Verl.statistics.planning import StudyNoise
from Verl.study import plan, resolution
from Verl.study.measured import seconds_per_evaluated, seconds_per_response
from Verl.trainer import memory
from Verl.trainer.run_folder import last_step

GIB = 2**30
TOY = memory.ModelSize("toy", layers=2, hidden=4, intermediate=8, heads=2, kv_heads=1, head_dim=2, vocabulary=10,
                       tied=True, context=64)  # fmt: skip
# vocabulary 40, per layer: q and o 2 x 4 x 4, k and v 2 x 4 x 2, MLP 3 x 4 x 8, norms 2 x 4; last norm 4
TOY_PARAMETERS = 40 + 2 * (32 + 16 + 96 + 8) + 4


SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": -1}


def config(**changes):
    base = OmegaConf.create(
        {
            "data": {"train_batch_size": 32, "max_prompt_length": 512, "max_response_length": 1024},
            "trainer": {"total_epochs": 100, "total_training_steps": None, "test_freq": 50, "val_before_train": True,
                        "n_gpus_per_node": 1, "nnodes": 1},
            "evaluation": {
                "train_questions": 256, "val_questions": -1, "test_questions": -1, "val_freq": 25, "final_samples": 1,
            },
            "actor_rollout_ref": {
                "model": {"lora_rank": 0},
                "actor": {
                    "ppo_micro_batch_size_per_gpu": 4,
                    "fsdp_config": {"param_offload": False, "optimizer_offload": False},
                },
                "rollout": {
                    "name": "vllm", "n": 8, "gpu_memory_utilization": 0.6, "log_prob_micro_batch_size_per_gpu": 4, **SAMPLING,
                    "val_kwargs": {"n": 1, **SAMPLING},
                },
            },
        }
    )  # fmt: skip
    for key, value in changes.items():
        OmegaConf.update(base, key.replace("__", "."), value)
    return base


def test_parameters_are_counted_as_the_published_models_have_them(study):
    assert TOY.parameters == TOY_PARAMETERS == 348
    published = {"qwen0.5b": 494_032_768, "llama1b": 1_235_814_400, "olmo1b": 1_484_916_736, "smollm135m": 134_515_008}
    for name, count in published.items():
        assert memory.ModelSize.of(study.models[name]).parameters == count, name


def test_memory_of_the_0_5_b_model_by_hand(study):
    found = memory.memory(memory.ModelSize.of(study.models["qwen0.5b"]), config(), total_gib=40.0, reserve_gib=2.0)
    p = 494_032_768
    tokens = 4 * (512 + 1024)
    assert found.weights == found.gradients == pytest.approx(4 * p / GIB)
    assert found.optimizer == pytest.approx(8 * p / GIB)
    assert found.logits == pytest.approx(14 * tokens * 151_936 / GIB)
    assert found.activations == pytest.approx((2 * tokens * 24 * 896 + 2 * tokens * (8 * 896 + 3 * 4864)) / GIB)
    assert found.generate == pytest.approx(12 * p / GIB + 0.6 * 40 + 2)
    assert found.update == pytest.approx(18 * p / GIB + found.logits + found.activations + 2)
    assert found.cache == pytest.approx(24 - 2 * p / GIB - 2)
    assert found.at_once == int(found.cache * GIB // (12_288 * 1536))  # 2 x 24 layers x 2 heads x 64 x 2 bytes
    assert found.fits and found.peak == found.generate


def test_offloading_leaves_the_gpu_to_vllm(study):
    size = memory.ModelSize.of(study.models["olmo1b"])
    offloaded = {"actor_rollout_ref__actor__fsdp_config__param_offload": True,
                 "actor_rollout_ref__actor__fsdp_config__optimizer_offload": True,
                 "actor_rollout_ref__rollout__gpu_memory_utilization": 0.8}  # fmt: skip
    there = memory.memory(size, config(actor_rollout_ref__rollout__gpu_memory_utilization=0.8), 39.39, 2.0)
    away = memory.memory(size, config(**offloaded), 39.39, 2.0)
    assert not there.fits and away.fits
    assert away.generate == pytest.approx(0.8 * 39.39 + 2.0)
    assert away.update == there.update


def test_what_does_not_fit_is_said_with_a_remedy(study):
    size = memory.ModelSize.of(study.models["olmo1b"])
    updating = memory.memory(size, config(actor_rollout_ref__rollout__gpu_memory_utilization=0.5), 24.0, 2.0)
    assert "lower actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu" in memory.too_small("x", updating)
    generating = memory.memory(size, config(actor_rollout_ref__rollout__gpu_memory_utilization=0.9), 39.39, 2.0)
    assert "gpu_memory_utilization" in memory.too_small("x", generating)
    no_cache = memory.memory(size, config(actor_rollout_ref__rollout__gpu_memory_utilization=0.1), 40.0, 2.0)
    assert "no room for one sequence's cache" in memory.too_small("x", no_cache)
    assert memory.too_small("x", memory.memory(size, config(), 80.0, 2.0)) is None


def test_all_gpu_arms_fit_the_planned_machine(study):
    """With the settings of config/model/*.yaml, at both memory shares."""
    machine = study.machines["a100"]
    for name in ("qwen0.5b", "llama1b", "olmo1b"):
        for share in (0.6, 0.8):
            changes = {"actor_rollout_ref__rollout__gpu_memory_utilization": share}
            if name != "qwen0.5b":
                changes |= {f"actor_rollout_ref__actor__fsdp_config__{x}_offload": True for x in ("param", "optimizer")}
            size = memory.ModelSize.of(study.models[name])
            found = memory.memory(size, config(**changes), machine["memory_gib"], machine["reserve_gib"])
            assert found.fits, (name, share, found)


QUESTIONS = {"train": 6961, "validation": 512, "test": 1319}


def test_steps_queries_and_tokens():
    work = plan.workload(config(data__extra_sampling_size=2), QUESTIONS, steps=100)
    assert (work.steps, work.steps_are_bound, work.responses) == (100, False, 32 * (8 + 2))
    assert work.tokens == 100 * 320 * 1024
    # train sample and validation at 0, 25, 50, 75, 100; test at 0, 50, 100
    assert work.evaluated == 5 * (256 + 512) + 3 * 1319
    # the last step is evaluated whatever the frequency
    assert plan.workload(config(), QUESTIONS, steps=110).evaluated == 6 * (256 + 512) + 4 * 1319
    # seven further answers to every test question at both ends
    final = plan.workload(config(evaluation__final_samples=8), QUESTIONS, steps=110)
    assert final.evaluated == 6 * (256 + 512) + 4 * 1319 + 2 * 7 * 1319 and final.further == 2 * 7 * 1319
    greedy = config(evaluation__final_samples=8, actor_rollout_ref__rollout__val_kwargs__temperature=0.0)
    assert plan.workload(greedy, QUESTIONS, steps=110).further == 0
    assert plan.workload(config(trainer__total_training_steps=7), QUESTIONS).steps == 7
    bound = plan.workload(config(), QUESTIONS)
    assert bound.steps == 100 * (6961 // 32) and bound.steps_are_bound


def test_hours_by_hand():
    machine = {"bandwidth_gb_s": 1e-6, "bf16_tflop_s": 1e-8, "efficiency": 0.5}  # 1,000 bytes and 10,000 operations a second
    work = plan.Workload(2, 3, 1, prompt=10, response=20, steps=5, steps_are_bound=False, evaluated=0)
    hours = plan.reckoned_hours(TOY, work, at_once=4, machine=machine)
    # a decoding step of 4 sequences: 2 x 348 bytes of weights, 4 x 16 x (10 + 20/2) of cache; 2 x 348 x 4 operations
    decode = 20 * ((696 + 1280) / 1000 + 2784 / 10_000)
    prefill = 2 * 348 * 10 * 8 / 10_000
    assert hours.generate == pytest.approx(5 * (2 * decode + prefill) / 3600 / 0.5)
    assert hours.train == pytest.approx(5 * 12 * 348 * (10 + 20) * 2 * 3 / 10_000 / 3600 / 0.5)
    assert hours.evaluate == 0 and hours.total == hours.generate + hours.train
    # On two GPUs each draws 4 of the 8 responses and trains on 3 of the 6.
    two = plan.reckoned_hours(TOY, replace(work, gpus=2), at_once=4, machine=machine)
    assert two.generate == pytest.approx(hours.generate / 2) and two.train == pytest.approx(hours.train / 2)


def test_measured_speed_is_the_median_over_steps_and_runs(tmp_path):
    def write(run, *steps):
        lines = [f'{{"step": {i}, "ledger/responses_generated": 10, "timing_s/step": {s}}}' for i, s in enumerate(steps)]
        (tmp_path / f"{run}.jsonl").write_text("\n".join([*lines, '{"step": 9, "eval/test/pass@1": 0.5}', '{"st']))

    assert seconds_per_response(tmp_path, "tiny_arith") is None
    write("a_tiny_arith_seed0", 100.0, 2.0, 3.0, 4.0)  # the first step does not count
    write("b_tiny_arith_seed0", 100.0, 5.0, 5.0)
    write("c_other_arith_seed0", 100.0, 9.0, 9.0)
    assert seconds_per_response(tmp_path, "tiny_arith") == (pytest.approx((0.3 + 0.5) / 2), 2)
    assert seconds_per_response(tmp_path, "tiny_arith", "b") == (pytest.approx(0.5), 1)
    assert last_step(tmp_path / "a_tiny_arith_seed0.jsonl") == 9 and last_step(tmp_path / "none.jsonl") == -1
    work = plan.Workload(2, 5, 0, 10, 20, steps=36, steps_are_bound=False, evaluated=40)
    assert plan.measured_hours(work, 0.4).total == pytest.approx((36 * 10 + 40) * 0.4 / 3600)


def test_a_packed_study_has_its_pace_too(root):
    """The README's hours on a CPU are reckoned from the committed study."""
    committed = root / "Running-Results/studies/tiny_arith/result"
    (seconds, runs), few = (seconds_per_response(committed, "tiny_arith", arm) for arm in ("grpo_0032_8", "none"))
    assert runs == 3 and 0 < seconds < 0.1 and few is None


def test_evaluation_has_a_pace_of_its_own(tmp_path):
    """1,024 responses of an evaluation with 8 answers to each of 512 questions at its last step, and 256 others."""
    record = {"step": 20, "timing_s/testing": 2.56, "eval/test/questions": 512.0, "eval/test/samples": 1.0,
              "eval/test/pass@1": 0.5, "eval/train/pass@1": 0.5}
    last = record | {"step": 40, "timing_s/testing": 4352 * 0.01, "eval/test/avg@8": 0.5, "eval/test/avg@8/failures": 0.0,
                     "eval/train/questions": 256.0, "eval/train/samples": 1.0}  # fmt: skip
    (tmp_path / "a_tiny_arith_seed0.jsonl").write_text("\n".join(map(json.dumps, [record, last, last])))
    assert seconds_per_evaluated(tmp_path, "tiny_arith") == (pytest.approx(0.01), 1)
    work = plan.Workload(2, 5, 0, 10, 20, steps=36, steps_are_bound=False, evaluated=40)
    assert plan.measured_hours(work, 0.4, 0.01).total == pytest.approx((360 * 0.4 + 40 * 0.01) / 3600)


def test_the_noise_is_measured_where_there_are_runs_and_assumed_where_not(study, tmp_path):
    settings = study.detectable
    assert resolution.measured_noise(tmp_path, "tiny_arith", ["grpo_0032_1", "grpo_0032_8"], "grpo_0032_1") is None
    rng = np.random.default_rng(4)
    for arm, gain in (("grpo_0032_1", 0.0), ("grpo_0032_8", 0.1), ("grpo_0064_8", 0.1), ("grpo_0128_8", 0.1)):
        for seed in range(4):
            chance = np.clip(0.5 + gain + 0.03 * rng.standard_normal(), 0, 1)
            write_final_answers(tmp_path, arm, seed, rng.random((400, 4)) < chance)
    noise, source = resolution.measured_noise(tmp_path, "tiny_arith", study.pairs["tiny_arith"].arms, "grpo_0032_1")
    assert (noise.questions, noise.samples) == (400, 4) and "4 arms" in source and "4 seeds" in source
    assert 0.5 < noise.answers / (2 * 0.24 / 400) < 2 and 0.01 < (noise.seeds / 2) ** 0.5 < 0.08
    size = {"seeds": 4, "samples": 4, "questions": 400}
    said = resolution.expected(noise, source, arms=4, settings=settings, **size)
    assert "3 comparisons" in said[0] and "4 seeds x 4 answers x 400 questions" in said[0] and "training seeds" in said[1]
    smaller = resolution.expected(noise, source, arms=4, settings=settings, seeds=8, samples=4, questions=400)
    assert smaller[0].split(": ")[1] < said[0].split(": ")[1]
    assert "none (one seed" in resolution.expected(noise, "", arms=4, settings=settings, **(size | {"seeds": 1}))[0]


def test_where_the_next_hours_pay():
    """All noise from training: seeds. All noise from the answers: answers, if they are cheap."""
    size = {"seeds": 3, "samples": 1, "questions": 500, "run_hours": 2.0, "sample_hours": 0.01}
    training = resolution.next_hour(StudyNoise(1e-4, 0.0, 0.0, 0.0, 500, 1), **size)
    answers = resolution.next_hour(StudyNoise(0.0, 0.0, 1e-4, 0.0, 500, 1), **size)
    assert "the next 2 hours (all arms) are best spent on further seeds: 4 seeds x 1 answers" in training[0]
    assert "best spent on further answers: 3 seeds x 64 answers" in answers[0] and "0.0058 -> 0.0007" in answers[0]
    assert training[1].endswith("about 1") and answers[1].endswith("as many as can be had")


def test_an_arm_s_own_runs_come_before_its_pair_s(study, tmp_path):
    """Two arms of 32 and 256 responses a step; only the first has runs, of 3.2 s a step."""
    from Verl.study import design_text, shipped

    lines = [f'{{"step": {i}, "ledger/responses_generated": 32, "timing_s/step": 3.2}}' for i in range(3)]
    (tmp_path / "grpo_0032_1_tiny_arith_seed0.jsonl").write_text("\n".join(lines))
    lines = [f'{{"step": {i}, "ledger/responses_generated": 64, "timing_s/step": 19.2}}' for i in range(3)]
    (tmp_path / "asyttgrpo_0064_1_8_tiny_arith_seed0.jsonl").write_text("\n".join(lines))
    pair = study.pairs["tiny_arith"]
    arms = study.chosen(pair, [], ["advantage"])
    rows = [(arm, shipped.prepare(f"run_{arm.name}_tiny_arith.sh")) for arm in arms]
    options = {"steps": 100, "seeds": 2, "result_dir": tmp_path, "detectable": study.detectable, "seed_std": False,
               "machine": design_text.machine_with(study, pair, None, None)}  # fmt: skip
    found = design_text.CostPlan(study, pair, rows, options)
    # 0.1 s a response of its own runs; the other takes the pair's median of 0.1 and 0.3
    assert found.per_100_steps == pytest.approx(100 * (32 * 0.1 + 256 * 0.2) / 3600)
    text = "\n".join([*found.lines(), *design_text.whole_study([found, found])])
    assert "measured, 2 runs of this pair" in text and "all 2 pairs: 8 runs" in text
