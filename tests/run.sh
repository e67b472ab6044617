#!/usr/bin/env bash
# The tests, with the same set-up as the scripts. Arguments go to pytest: bash tests/run.sh -m "not slow"
# Three files at a time, on two cores too: a run waits half of its time. BANDIT_TEST_JOBS=0 runs them one after the other in this
# process (for a debugger).
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh
set -euo pipefail
unset CDPATH
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/Running-Bash/setup.sh"
cd "$root"
exec "${BANDIT_VENV:-$root/.venv}/bin/python" -m pytest -n "${BANDIT_TEST_JOBS:-3}" --dist loadfile --no-loadscope-reorder "$@"
