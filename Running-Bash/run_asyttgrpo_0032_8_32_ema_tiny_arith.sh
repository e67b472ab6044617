#!/usr/bin/env bash
# GRPO against the query's own past rewards (Asy-TTGRPO), 32 queries x 8 rollouts a step: the embedded model on sums.
# Against run_grpo_0032_1_tiny_arith.sh: an advantage against its query's last 32 rewards, 8 rollouts per query instead
#   of 1, no division by a std; instead of a window an average that keeps a quarter of the past at each visit, read
#   before this round.
# Takes, on this CPU: see README.md.
# Compared with what, and what was published: `python Running-Bash/design.py show --pair tiny_arith`.
# Written by generate_scripts.py from study.yaml; edit it and it runs, and is named by, what it then says.
# shellcheck disable=SC2034 source-path=SCRIPTDIR source=common.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh" # and what it does with them
algorithm=replay
adv_estimator=asyttgrpo
train_batch_size=32
rollout_n=8
window_size=32
variant=ema
own_arguments=(
    algorithm.norm_adv_by_std_in_grpo=false
    algorithm.replay.include_current=false
    algorithm.replay.baseline=ema
    algorithm.replay.decay=0.25
)
model=tiny
data=arith
run "$@"
