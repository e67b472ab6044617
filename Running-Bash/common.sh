# shellcheck shell=bash
# What every run_*.sh shares. A script reads this file, sets its few variables and ends with: run "$@"
# The numbers that the arms share stand in Verl/trainer/config/base.yaml; docs/settings.md says which of two settings wins.
#
# A script's arguments:
#   key=value ...     Hydra overrides, after everything that the script sets (seed=1, trainer.total_training_steps=20, ...)
#   --dry-run         check everything, print the resolved config, start nothing
#   --where KEY       say where the value of a key comes from, start nothing
#   --background      start, print where the log is, and return
#   --print-args      print the command's arguments, one a line, and stop (for tests and tools)

set -euo pipefail
unset CDPATH # exported, it makes cd print a folder of its own
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
script=$(basename -- "$0")
export BANDIT_CWD=$PWD # relative paths that a user types begin here, those of the settings at the repository's root

required="algorithm adv_estimator train_batch_size rollout_n model data"
settings="$required extra_sampling_size window_size variant own_arguments"
# shellcheck disable=SC2086
unset $settings # what the caller's environment happens to hold is no setting

refuse() { trap - EXIT && echo "error: $script: $1" >&2 && exit 2; }
! grep -q $'\r' -- "$0" || refuse "it has Windows' line ends, which bash reads as part of each value: sed -i 's/\\r\$//' $0"
trap '[[ $? != 0 ]] || refuse "it must end with: run \"\$@\""' EXIT

check_settings() { # a slip in a name is an error, not a default that runs in silence
    for name in $(compgen -v); do
        [[ "$before $settings before name BASH_REMATCH FUNCNAME " == *" $name "* ]] ||
            refuse "it sets $name, which nothing reads; the settings are: $settings"
    done
    for name in $required; do
        [[ -n ${!name:-} ]] || refuse "it must set $name"
    done
    [[ $algorithm =~ ^(grpo|bandit|replay)$ ]] || refuse "algorithm=$algorithm is unknown: choose grpo, bandit or replay"
}

run() {
    trap - EXIT
    check_settings
    local flags=() user=() background=no print_args=no typed= root python home
    while (($#)); do
        case $1 in
            --dry-run) flags+=("$1") ;;
            --where)
                [[ $# -gt 1 ]] || refuse "--where needs a key"
                flags+=("$1" "$2") && shift
                ;;
            --background) background=yes ;;
            --print-args) print_args=yes ;;
            --*) echo "error: unknown option $1: use --dry-run, --where, --background or key=value" >&2 && exit 2 ;;
            *) user+=("$1") && typed+=" $1" ;;
        esac
        shift
    done

    local arguments=(
        model="$model"
        data="$data"
        algorithm.adv_estimator="$adv_estimator"
        data.train_batch_size="$train_batch_size"
        actor_rollout_ref.rollout.n="$rollout_n"
        ${extra_sampling_size:+data.extra_sampling_size="$extra_sampling_size"}
        ${window_size:+data.window_size="$window_size"}
        ${variant:+run.variant="$variant"}
    )
    # What a script sets beyond these is named by its variant; without one, as if it had been typed.
    if [[ -n ${variant:-} ]]; then
        arguments+=(${own_arguments[@]+"${own_arguments[@]}"})
    else
        user=(${own_arguments[@]+"${own_arguments[@]}"} ${user[@]+"${user[@]}"})
    fi
    local module=Verl.trainer.main_ppo_$algorithm
    if [[ $print_args == yes ]]; then
        printf '%s\n' "$module" "${arguments[@]}" @ ${user[@]+"${user[@]}"}
        exit 0
    fi

    # shellcheck source-path=SCRIPTDIR source=enter.sh
    source "$here/enter.sh"
    export BANDIT_COMMAND="bash Running-Bash/$script$typed" # recorded with the run
    local command=("$python" -m "$module" ${flags[@]+"${flags[@]}"} "${arguments[@]}" @ ${user[@]+"${user[@]}"})
    cd "$root"
    if [[ $background == yes ]]; then
        mkdir -p Running-Results/result
        local console=Running-Results/result/${script%.sh}.console
        nohup "${command[@]}" >"$console" 2>&1 </dev/null &
        echo "started in the background as process $!; follow it with: tail -f $console"
        exit 0
    fi
    exec "${command[@]}"
}

name=
before=" $(compgen -v | tr '\n' ' ')"
