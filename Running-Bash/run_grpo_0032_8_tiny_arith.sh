#!/usr/bin/env bash
# GRPO, 32 queries x 8 rollouts a step, on the embedded model and sums.
# Changes against the base line (run_grpo_0032_1): 8 rollouts per query instead of 1.
# HEADER_TIME
algorithm=grpo
adv_estimator=grpo
train_batch_size=32
rollout_n=8
model=tiny
data=arith
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
