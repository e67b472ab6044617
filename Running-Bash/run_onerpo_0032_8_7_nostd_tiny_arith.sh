#!/usr/bin/env bash
# One-RPO (mean and std from extra rollouts), 32 queries x 8 rollouts a step: the embedded model on sums.
# Against run_grpo_0032_1_tiny_arith.sh: an advantage whose mean and std also count 7 extra rollouts that are never
#   trained on, 8 rollouts per query instead of 1, no division by a std: the baseline alone counts the extra rollouts.
# Takes, on this CPU: see README.md.
# Compared with what, and what was published: `python Running-Bash/design.py show --pair tiny_arith`.
# Written by generate_scripts.py from study.yaml; edit it and it runs, and is named by, what it then says.
# shellcheck disable=SC2034 source-path=SCRIPTDIR source=common.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh" # and what it does with them
algorithm=bandit
adv_estimator=onerpo
train_batch_size=32
rollout_n=8
extra_sampling_size=7
variant=nostd
own_arguments=(algorithm.norm_adv_by_std_in_grpo=false)
model=tiny
data=arith
run "$@"
