#!/usr/bin/env bash
# GRPO, 32 queries x 8 rollouts a step, Qwen2.5-0.5B-Instruct on GSM8K: the published cell, on one A100 40 GB.
# HEADER_TIME
algorithm=grpo
adv_estimator=grpo
train_batch_size=32
rollout_n=8
model=qwen0.5b
data=gsm
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
