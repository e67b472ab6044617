# shellcheck shell=bash
# What every command begins with: `root`, the set-up on first use, and `python` as it is to be started.

unset CDPATH PYTHONHOME # with an exported CDPATH, cd prints a folder of its own
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

# Caches and settings of many packages are below the home; where that can't be written (a batch job, a container), they are
# below the repository, or in a folder that is gone with the machine.
if [[ ! -d ${HOME:-} || ! -w $HOME ]]; then
    home=$root/.cache/home
    mkdir -p "$home" 2>/dev/null || home=$(mktemp -d)
    echo "HOME=${HOME:-} can't be written to: using $home in its place" >&2
    export HOME=$home
fi

bash "$root/Running-Bash/setup.sh" || exit $?
python=${BANDIT_VENV:-$root/.venv}/bin/python

# The user's PYTHONPATH goes behind the environment's own packages (Verl/__init__.py): before them it would replace them.
if [[ ${PYTHONPATH:-} != "$root"* ]]; then
    export BANDIT_PYTHONPATH=${PYTHONPATH:-}
fi
export PYTHONPATH=$root
