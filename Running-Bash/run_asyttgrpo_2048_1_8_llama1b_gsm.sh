#!/usr/bin/env bash
# GRPO against the query's own past rewards (Asy-TTGRPO), 2048 queries x 1 rollout a step: Llama-3.2-1B-Instruct on
#   GSM8K.
# Against run_grpo_0032_1_llama1b_gsm.sh: an advantage against its query's last 8 rewards, 2048 queries instead of 32.
# Takes, on one A100 40 GB: about 26 h per 100 steps if every response is as long as it may be, evaluation apart
#   (reckoned from its data sheet x 0.25, not measured: see `python Running-Bash/design.py plan --pair llama1b_gsm`).
# Compared with what, and what was published: `python Running-Bash/design.py show --pair llama1b_gsm`.
# Written by generate_scripts.py from study.yaml; edit it and it runs, and is named by, what it then says.
# shellcheck disable=SC2034 source-path=SCRIPTDIR source=common.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh" # and what it does with them
algorithm=replay
adv_estimator=asyttgrpo
train_batch_size=2048
rollout_n=1
window_size=8
model=llama1b
data=gsm
run "$@"
