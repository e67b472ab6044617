# shellcheck shell=bash
# What every command here begins with: python.sh, a home that can be written to, and the set-up on first use.

# shellcheck source-path=SCRIPTDIR source=python.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/python.sh"

# Caches and settings of many packages are below the home; where that can't be written (a batch job, a container), they are
# below the repository, or in a folder that is gone with the machine.
if [[ ! -d ${HOME:-} || ! -w $HOME ]]; then
    home=$root/.cache/home
    mkdir -p "$home" 2>/dev/null || home=$(mktemp -d)
    echo "HOME=${HOME:-} can't be written to: using $home in its place" >&2
    export HOME=$home
fi

bash "$root/Running-Bash/setup.sh" || exit $?
