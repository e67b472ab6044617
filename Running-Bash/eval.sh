#!/usr/bin/env bash
# Evaluates a model on a prepared set: one sample per question at temperature 1.0 unless told otherwise.
#
#   bash Running-Bash/eval.sh --model tiny --data arith --out <folder>     by name: Verl/trainer/config/{model,data}/*.yaml
#   bash Running-Bash/eval.sh --model <folder, Hub name or <run>/checkpoints/global_step_k> --data <parquet> --out <folder>
#   bash Running-Bash/eval.sh --help
#
# Paths are taken from where you are. An interrupted evaluation goes on when the same command is given again.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/Running-Bash/setup.sh"
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
BANDIT_COMMAND="bash Running-Bash/eval.sh$(printf ' %q' "$@")" # recorded with the result
export BANDIT_COMMAND
exec "${BANDIT_VENV:-$root/.venv}/bin/python" -m Verl.trainer.main_eval "$@"
