#!/usr/bin/env bash
# One-RPO (mean and std from extra rollouts), 32 queries x 1 rollout a step: SmolLM2-135M-Instruct on the largest of
#   four numbers.
# Against run_grpo_0032_1_smollm135m_largest.sh: an advantage whose mean and std also count 7 extra rollouts that are
#   never trained on.
# Takes, on this CPU: see README.md.
# Compared with what, and what was published: `python Running-Bash/design.py show --pair smollm135m_largest`.
# Written by generate_scripts.py from study.yaml; edit it and it runs, and is named by, what it then says.
# shellcheck disable=SC2034 source-path=SCRIPTDIR source=common.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh" # and what it does with them
algorithm=bandit
adv_estimator=onerpo
train_batch_size=32
rollout_n=1
extra_sampling_size=7
model=smollm135m
data=largest
run "$@"
