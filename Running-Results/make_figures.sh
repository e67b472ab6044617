#!/usr/bin/env bash
# Draws every figure and table from what is in result/ into Figure/: under a minute, the same bytes if nothing changed.
# Arguments: --result DIR, --figure DIR, --pairs tiny_arith ..., --axis steps tokens ... (the axes of every figure),
#   --metric response_length/mean ... (any key of the jsonl instead of Pass@1, in files named after it)
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh
set -u
# shellcheck source-path=SCRIPTDIR source=../Running-Bash/python.sh
source "$(dirname "${BASH_SOURCE[0]}")/../Running-Bash/python.sh"
# shellcheck source=same_bytes.sh
source "$root/Running-Results/same_bytes.sh"
[[ -x $python ]] || python=$(command -v python3)
if ! "$python" -m Verl.analysis.figures.cli "$@"; then
    echo "make_figures: at least one figure was not drawn; the reason stands above." >&2
    exit 1
fi
