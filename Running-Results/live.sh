#!/usr/bin/env bash
# The curves so far of the runs going on, in the terminal, until Ctrl-C: live.sh [RUN ...] [--once] [--all] [--result DIR]
set -eu
unset CDPATH
root="$(cd "$(dirname "$0")/.." && pwd)"
python="${BANDIT_VENV:-$root/.venv}/bin/python"
[ -x "$python" ] || python="$(command -v python3)"
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m Verl.analysis.live.cli "$@"
