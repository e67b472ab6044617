#!/usr/bin/env bash
# GRPO, 32 queries x 16 rollouts a step: Llama-3.2-1B-Instruct on MATH.
# Against run_grpo_0032_1_llama1b_math.sh: 16 rollouts per query instead of 1, so the reward minus the group's mean,
#   over its std, as the signal.
# Takes, on one A100 40 GB: about 6.5 h per 100 steps if every response is as long as it may be, evaluation apart
#   (reckoned from its data sheet x 0.25, not measured: see `python Running-Bash/design.py plan --pair llama1b_math`).
# Compared with what, and what was published: `python Running-Bash/design.py show --pair llama1b_math`.
# Written by generate_scripts.py from study.yaml; edit it and it runs, and is named by, what it then says.
# shellcheck disable=SC2034 source-path=SCRIPTDIR source=common.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh" # and what it does with them
algorithm=grpo
adv_estimator=grpo
train_batch_size=32
rollout_n=16
model=llama1b
data=math
run "$@"
