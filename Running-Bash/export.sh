#!/usr/bin/env bash
# Writes a run's checkpoint as a Hugging Face folder: safetensors, tokenizer, chat template, generation config, model card.
#
#   bash Running-Bash/export.sh --model <run> [--step k | --best] --out <folder> [--push <name on the Hub>]
#   bash Running-Bash/export.sh --model <run>/checkpoints/global_step_k --out <folder>
#   bash Running-Bash/export.sh --help
#
# Paths are taken from where you are; a run is named as its jsonl is.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/Running-Bash/setup.sh"
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
exec "${BANDIT_VENV:-$root/.venv}/bin/python" -m Verl.trainer.main_export "$@"
