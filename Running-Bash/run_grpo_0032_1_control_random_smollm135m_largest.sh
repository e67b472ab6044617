#!/usr/bin/env bash
# GRPO, 32 queries x 1 rollout a step: SmolLM2-135M-Instruct on the largest of four numbers.
# Against run_grpo_0032_1_smollm135m_largest.sh: a random reward.
# Takes, on this CPU: see README.md.
# Expect: no gain: what rises here is not learnt from the reward.
# Compared with what, and what was published: `python Running-Bash/design.py show --pair smollm135m_largest`.
# Written by generate_scripts.py from study.yaml; edit it and it runs, and is named by, what it then says.
# shellcheck disable=SC2034 source-path=SCRIPTDIR source=common.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh" # and what it does with them
algorithm=grpo
adv_estimator=grpo
train_batch_size=32
rollout_n=1
variant=control_random
own_arguments=(reward.rule=random)
model=smollm135m
data=largest
run "$@"
