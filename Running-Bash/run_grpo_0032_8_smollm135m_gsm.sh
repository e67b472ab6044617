#!/usr/bin/env bash
# GRPO on a real model and real data, on a CPU: 3 steps, to see answers, rewards and log-prob gap.
# HEADER_TIME
algorithm=grpo
adv_estimator=grpo
train_batch_size=32
rollout_n=8
model=smollm135m
data=gsm
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
