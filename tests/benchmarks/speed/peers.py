"""TRL's GRPOTrainer on the same work. Runs in an environment of its own that holds trl and nothing of ours:

    python -m venv <folder> && <folder>/bin/pip install torch==2.13.0 trl==1.16.0 transformers==5.9.0
    <folder>/bin/python tests/benchmarks/speed/peers.py '<work as json>' <steps> <model> <train.parquet>

Its settings are those of ours where both have them (fp32, no checkpointing, a KL term and so a reference pass, one update a
round, the end token suppressed); the rest are its defaults. Prints one line of json. Reference seconds are what scoring
takes beside generation; update is the rest of a step.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tempfile
import time
import zlib

import pandas
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class Timed(GRPOTrainer):
    """Seconds of generation and of generation plus scoring, kept per step."""

    def __init__(self, *args, **kwargs):
        self.seconds = {"gen": 0.0, "scored": 0.0}
        super().__init__(*args, **kwargs)

    def _generate(self, *args, **kwargs):
        began = time.perf_counter()
        result = super()._generate(*args, **kwargs)
        self.seconds["gen"] += time.perf_counter() - began
        return result

    def _generate_and_score_completions(self, *args, **kwargs):
        began = time.perf_counter()
        result = super()._generate_and_score_completions(*args, **kwargs)
        self.seconds["scored"] += time.perf_counter() - began
        assert int(result["completion_mask"].sum()) == self.expected_tokens, "the responses are not of the asked length"
        return result


class Clock(TrainerCallback):
    """From the end of one step to the end of the next: all that a step costs."""

    def __init__(self):
        self.records, self.last, self.trainer = [], time.perf_counter(), None

    def on_step_end(self, args, state, control, **kwargs):
        now, seconds = time.perf_counter(), self.trainer.seconds
        step = now - self.last
        self.records.append(
            {"step": step, "gen": seconds["gen"], "ref": seconds["scored"] - seconds["gen"],
             "update_actor": step - seconds["scored"]}
        )  # fmt: skip
        self.last, self.trainer.seconds = now, {"gen": 0.0, "scored": 0.0}


def reward(prompts, completions, **kwargs) -> list[float]:
    """Ours: a checksum's parity."""
    return [float(zlib.crc32(completion[0]["content"].encode()) % 2) for completion in completions]


def main() -> None:
    work, steps, model, data = json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    sequences, micro = work["queries"] * work["rollouts"], min(work["micro"], work["queries"] * work["rollouts"])
    tokenizer = AutoTokenizer.from_pretrained(model)
    prompts = [[dict(turn) for turn in row] for row in pandas.read_parquet(data)["prompt"]]
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder, use_cpu=True, bf16=False, gradient_checkpointing=False, beta=0.001,
            per_device_train_batch_size=micro, gradient_accumulation_steps=sequences // micro,
            num_generations=work["rollouts"], max_completion_length=work["response"], max_steps=steps + 1,
            learning_rate=1e-6, lr_scheduler_type="constant", weight_decay=0.01, max_grad_norm=1.0, temperature=1.0,
            model_init_kwargs={"dtype": "float32"}, report_to=[], save_strategy="no", logging_strategy="no",
            disable_tqdm=True, dataloader_pin_memory=False,
            generation_kwargs={"suppress_tokens": [tokenizer.eos_token_id]},
        )  # fmt: skip
        clock = Clock()
        trainer = Timed(
            model=model, reward_funcs=reward, args=config, train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=tokenizer, callbacks=[clock],
        )  # fmt: skip
        trainer.expected_tokens = sequences * work["response"]
        clock.trainer, clock.last = trainer, time.perf_counter()
        trainer.train()
    versions = {name: importlib.metadata.version(name) for name in ("trl", "torch", "transformers", "accelerate")}
    print(json.dumps({"steps": {"trl": clock.records[1:]}, "versions": versions}))  # the first step warms up


if __name__ == "__main__":
    main()
