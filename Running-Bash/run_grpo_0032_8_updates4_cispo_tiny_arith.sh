#!/usr/bin/env bash
# GRPO, 32 queries x 8 rollouts a step: the embedded model on sums.
# Against run_grpo_0032_8_tiny_arith.sh: 4 updates per round, a token's ratio clipped as a weight, so that no token
#   loses its gradient.
# Takes, on this CPU: see README.md.
# Compared with what, and what was published: `python Running-Bash/design.py show --pair tiny_arith`.
# Written by generate_scripts.py from study.yaml; edit it and it runs, and is named by, what it then says.
# shellcheck disable=SC2034 source-path=SCRIPTDIR source=common.sh
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh" # and what it does with them
algorithm=grpo
adv_estimator=grpo
train_batch_size=32
rollout_n=8
variant=updates4_cispo
own_arguments=(
    actor_rollout_ref.actor.ppo_mini_batch_size=8
    actor_rollout_ref.actor.policy_loss.loss_mode=cispo
    actor_rollout_ref.actor.clip_ratio_low=1.0
)
model=tiny
data=arith
run "$@"
