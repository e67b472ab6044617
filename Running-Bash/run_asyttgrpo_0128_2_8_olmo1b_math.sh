#!/usr/bin/env bash
# GRPO against the query's own past rewards (Asy-TTGRPO), 128 queries x 2 rollouts a step: OLMo-2-0425-1B-Instruct on
#   MATH.
# Against run_grpo_0032_1_olmo1b_math.sh: an advantage against its query's last 8 rewards, 128 queries instead of 32, 2
#   rollouts per query instead of 1.
# Takes, on one A100 40 GB: about 6.6 h per 100 steps if every response is as long as it may be, evaluation apart
#   (reckoned from its data sheet x 0.25, not measured: see `python Running-Bash/design.py plan --pair olmo1b_math`).
# Compared with what, and what was published: `python Running-Bash/design.py show --pair olmo1b_math`.
# Written by generate_scripts.py from study.yaml; edit it and it runs, and is named by, what it then says.
# shellcheck disable=SC2034 source-path=SCRIPTDIR source=common.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh" # and what it does with them
algorithm=replay
adv_estimator=asyttgrpo
train_batch_size=128
rollout_n=2
window_size=8
model=olmo1b
data=math
run "$@"
