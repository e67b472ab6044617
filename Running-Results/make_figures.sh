#!/usr/bin/env bash
# Draws every figure and table from what is in result/ into Figure/: under a minute, the same bytes if nothing changed.
# Arguments go to every script: make_figures.sh --result DIR --figure DIR --pairs tiny_arith
set -u
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="$here/../.venv/bin/python"
[ -x "$python" ] || python="$(command -v python3)"
# one process per core, one thread each: most of the time goes into drawing
export OMP_NUM_THREADS=1
printf '%s\0' "$here"/plot_*.py | xargs -0 -P "$(getconf _NPROCESSORS_ONLN)" -I{} "$python" {} "$@"
if [ $? -ne 0 ]; then
    echo "make_figures: at least one figure was not drawn; the reason stands above." >&2
    exit 1
fi
