# shellcheck shell=bash
# olmo1b: OLMo-2-0425-1B-Instruct, from the Hugging Face Hub (3 GB, Apache-2.0), on one A100 40 GB with vLLM.
needs_gpu=yes
arguments+=(
    actor_rollout_ref.model.path=allenai/OLMo-2-0425-1B-Instruct
    trainer.device=cuda
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6
    # Weights (fp32) and optimizer wait in main memory while vLLM generates; `design.py plan` has the sums.
    actor_rollout_ref.actor.fsdp_config.param_offload=true
    actor_rollout_ref.actor.fsdp_config.optimizer_offload=true
    evaluation.final_samples=8   # answers per test question at both ends; design.py plan says what they cost
)
# At 512 queries and more the key-value cache needs a larger share.
if ((train_batch_size >= 512)); then
    arguments+=(actor_rollout_ref.rollout.gpu_memory_utilization=0.8)
fi

prepare_model() { :; } # verl fetches it from the Hub
