#!/usr/bin/env bash
# Writes the whole study as one self-contained page, Running-Results/report.html: report.sh [--result DIR] [--out FILE]
# report.sh --serve [PORT]: instead in a browser on this machine, made anew while runs go on, until Ctrl-C
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh
set -eu
# shellcheck source-path=SCRIPTDIR source=../Running-Bash/python.sh
source "$(dirname "${BASH_SOURCE[0]}")/../Running-Bash/python.sh"
# shellcheck source=same_bytes.sh
source "$root/Running-Results/same_bytes.sh"
[[ -x $python ]] || python=$(command -v python3)
exec "$python" -m Verl.analysis.report.build "$@"
