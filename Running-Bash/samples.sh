#!/usr/bin/env bash
# Shows what a run's model said, in the terminal or as one page.
#
#   bash Running-Bash/samples.sh <run> [--step 5:10] [--index 17] [--reward 0] [--limit 20]
#   bash Running-Bash/samples.sh <run> --eval test --reward 0     answers of the evaluations, not those of training
#   bash Running-Bash/samples.sh <run> --against <run2>           side by side: same step, question and rollout
#   bash Running-Bash/samples.sh <run> --html page.html           a page that needs no network
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=enter.sh
source "$(dirname "${BASH_SOURCE[0]}")/enter.sh"
exec "$python" -m Verl.analysis.samples.cli "$@"
