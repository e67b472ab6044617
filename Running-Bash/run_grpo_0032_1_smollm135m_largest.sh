#!/usr/bin/env bash
# The base line, SmolLM2-135M-Instruct on the largest of four numbers: 32 queries a step, one rollout each, the 0/1
#   reward as the signal.
# Takes, on this CPU: see README.md.
# Compared with what, and what was published: `python Running-Bash/design.py show --pair smollm135m_largest`.
# Written by generate_scripts.py from study.yaml; edit it and it runs, and is named by, what it then says.
# shellcheck disable=SC2034 source-path=SCRIPTDIR source=common.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh" # and what it does with them
algorithm=grpo
adv_estimator=grpo
train_batch_size=32
rollout_n=1
model=smollm135m
data=largest
run "$@"
