#!/usr/bin/env bash
# Checks a machine with one GPU in ten minutes at most and prints one table: tests/gpu/check.py says what.
#   bash tests/gpu/check.sh [--rehearse] [--out FOLDER]
# The Python environment: BANDIT_VENV, else .venv where Running-Bash/setup.sh made one, else, on a machine without a network, one
# that is made here from what tests/gpu/bring.sh packed: .cache/gpu-check/wheels, installed beside the machine's own torch.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh
set -euo pipefail
unset CDPATH
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
venv=${BANDIT_VENV:-$root/.venv}
if [[ ! -x $venv/bin/python ]]; then
    brought=.cache/gpu-check
    if compgen -G "$brought/part*" > /dev/null; then
        cat $brought/part* | tar -x # wheels, and the prepared model and data
    fi
    if [[ ! -d $brought/wheels ]]; then
        echo "error: no Python environment (BANDIT_VENV, .venv) and nothing brought along (bash tests/gpu/bring.sh)" >&2
        exit 2
    fi
    venv=$root/.venv-gpu-check
    python3 -m venv --system-site-packages "$venv"
    # --no-deps: the machine's torch stays, and its newer transformers gives way to the pinned one that was brought.
    "$venv/bin/python" -m pip install --quiet --no-index --no-deps --no-compile $brought/wheels/*.whl
fi
export PYTHONPATH=$root BANDIT_VENV=$venv
exec "$venv/bin/python" -m tests.gpu.check "$@"
