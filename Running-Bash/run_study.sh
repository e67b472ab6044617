#!/usr/bin/env bash
# Runs chosen arms of a pair on chosen seeds, one after the other, and goes on where it was cut. --help has the rest.
#
#   bash Running-Bash/run_study.sh --pair tiny_arith --arms grpo_0032_1 grpo_0032_8 --seeds 0 1 2
#   bash Running-Bash/run_study.sh --pair qwen0.5b_gsm --factor rollouts --seeds 0 1 2 --steps 500
#   bash Running-Bash/run_study.sh --pair tiny_arith --factor tradeoff --seeds 0 1 2 --budget tokens=500000
#   bash Running-Bash/run_study.sh --pair tiny_arith --base grpo_0032_8 --vary actor_rollout_ref.rollout.n=2,8 --seeds 0 1 2
#   bash Running-Bash/run_study.sh --pair tiny_arith --factor all --seeds 0 1 2 --until-decided --margin 0.02 --max-seeds 10

[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=enter.sh
source "$(dirname "${BASH_SOURCE[0]}")/enter.sh"
exec "$python" -m Verl.study.study_cli "$@"
