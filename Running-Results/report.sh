#!/usr/bin/env bash
# Writes the whole study as one self-contained page, Running-Results/report.html: report.sh [--result DIR] [--out FILE]
# report.sh --serve [PORT]: instead in a browser on this machine, made anew while runs go on, until Ctrl-C
set -eu
unset CDPATH
root="$(cd "$(dirname "$0")/.." && pwd)"
python="${BANDIT_VENV:-$root/.venv}/bin/python"
[ -x "$python" ] || python="$(command -v python3)"
export OMP_NUM_THREADS=1
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m Verl.analysis.report.build "$@"
