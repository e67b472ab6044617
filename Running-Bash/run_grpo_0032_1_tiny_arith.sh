#!/usr/bin/env bash
# The base line: 32 queries a step, one rollout each, the 0/1 reward itself as the training signal.
# HEADER_TIME
algorithm=grpo
adv_estimator=grpo
train_batch_size=32
rollout_n=1
model=tiny
data=arith
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
