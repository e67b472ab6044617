#!/usr/bin/env bash
# GRPO, 4 queries x 64 rollouts a step: Qwen2.5-0.5B-Instruct on MATH.
# Against run_grpo_0032_1_qwen0.5b_math.sh: 4 queries instead of 32, 64 rollouts per query instead of 1, so the reward
#   minus the group's mean, over its std, as the signal.
# Takes, on one A100 40 GB: about 1.3 h per 100 steps if every response is as long as it may be, evaluation apart
#   (reckoned from its data sheet x 0.25, not measured: see `python Running-Bash/design.py plan --pair qwen0.5b_math`).
# Compared with what, and what was published: `python Running-Bash/design.py show --pair qwen0.5b_math`.
# Written by generate_scripts.py from study.yaml; edit it and it runs, and is named by, what it then says.
# shellcheck disable=SC2034 source-path=SCRIPTDIR source=common.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh" # and what it does with them
algorithm=grpo
adv_estimator=grpo
train_batch_size=4
rollout_n=64
model=qwen0.5b
data=math
run "$@"
