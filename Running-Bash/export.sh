#!/usr/bin/env bash
# Writes a run's checkpoint as a Hugging Face folder: safetensors, tokenizer, chat template, generation config, model card.
#
#   bash Running-Bash/export.sh --model <run> [--step k | --best] --out <folder> [--push <name on the Hub>]
#   bash Running-Bash/export.sh --model <run>/checkpoints/global_step_k --out <folder>
#   bash Running-Bash/export.sh --help
#
# Paths are taken from where you are; a run is named as its jsonl is.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=enter.sh
source "$(dirname "${BASH_SOURCE[0]}")/enter.sh"
exec "$python" -m Verl.trainer.main_export "$@"
