# shellcheck shell=bash
# qwen0.5b: Qwen2.5-0.5B-Instruct, from the Hugging Face Hub (1 GB), on one A100 40 GB with vLLM.
needs_gpu=yes
arguments+=(
    actor_rollout_ref.model.path=Qwen/Qwen2.5-0.5B-Instruct
    trainer.device=cuda
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6
    evaluation.final_samples=8   # answers per test question at both ends; design.py plan says what they cost
)
# At 512 queries and more the key-value cache needs a larger share.
if ((train_batch_size >= 512)); then
    arguments+=(actor_rollout_ref.rollout.gpu_memory_utilization=0.8)
fi

prepare_model() { :; } # verl fetches it from the Hub
