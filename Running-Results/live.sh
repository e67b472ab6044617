#!/usr/bin/env bash
# The curves so far of the runs going on, in the terminal, until Ctrl-C: live.sh [RUN ...] [--once] [--all] [--result DIR]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh
set -eu
# shellcheck source-path=SCRIPTDIR source=../Running-Bash/python.sh
source "$(dirname "${BASH_SOURCE[0]}")/../Running-Bash/python.sh"
[[ -x $python ]] || python=$(command -v python3)
exec "$python" -m Verl.analysis.live.cli "$@"
