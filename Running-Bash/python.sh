# shellcheck shell=bash
# What a script here or in Running-Results begins with: `root`, and `python` as it is to be started. Sets nothing up.

unset CDPATH PYTHONHOME # with an exported CDPATH, cd prints a folder of its own
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
python=${BANDIT_VENV:-$root/.venv}/bin/python

# The user's PYTHONPATH goes behind the environment's own packages (Verl/__init__.py): before them it would replace them.
# A script that another one started finds it there already.
if [[ ${PYTHONPATH:-}: != "$root":* || -z ${BANDIT_PYTHONPATH+given} ]]; then
    export BANDIT_PYTHONPATH=${PYTHONPATH:-}
fi
export PYTHONPATH=$root
