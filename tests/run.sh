#!/usr/bin/env bash
# The tests, with the same set-up as the scripts. Arguments go to pytest: bash tests/run.sh -m "not slow"
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/Running-Bash/setup.sh"
cd "$root"
exec "${BANDIT_VENV:-$root/.venv}/bin/python" -m pytest "$@"
