#!/usr/bin/env bash
# Evaluates a model on a prepared set: one sample per question at temperature 1.0 by default.
#
#   bash Running-Bash/eval.sh --model tiny --data arith --out <folder>     by name: Verl/trainer/config/{model,data}/*.yaml
#   bash Running-Bash/eval.sh --model <folder, Hub name or <run>/checkpoints/global_step_k> --data <parquet> --out <folder>
#   bash Running-Bash/eval.sh --help
#
# Paths are taken from where you are. An interrupted evaluation goes on when the same command is given again.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=enter.sh
source "$(dirname "${BASH_SOURCE[0]}")/enter.sh"
BANDIT_COMMAND="bash Running-Bash/eval.sh$(printf ' %q' "$@")" # recorded with the result
export BANDIT_COMMAND
exec "$python" -m Verl.trainer.main_eval "$@"
