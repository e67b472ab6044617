#!/usr/bin/env bash
# REINFORCE against the batch's mean, 32 queries x 8 rollouts a step: the embedded model on sums.
# Against run_grpo_0032_1_tiny_arith.sh: the reward minus the mean of all responses of the step as the signal, 8
#   rollouts per query instead of 1.
# Takes, on this CPU: see README.md.
# Compared with what, and what was published: `python Running-Bash/design.py show --pair tiny_arith`.
# Written by generate_scripts.py from study.yaml; edit it and it runs, and is named by, what it then says.
# shellcheck disable=SC2034 source-path=SCRIPTDIR source=common.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh" # and what it does with them
algorithm=grpo
adv_estimator=batchmean
train_batch_size=32
rollout_n=8
model=tiny
data=arith
run "$@"
