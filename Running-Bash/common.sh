# shellcheck shell=bash
# Every hyperparameter that the arms share, once. A script sets its own few variables and then reads this file with its
# arguments. What belongs to a model stands in models/<model>.sh, what belongs to a data set in data/<data>.sh.
#
# A script's arguments:
#   key=value ...     Hydra overrides, after everything set here (seed=1, trainer.total_training_steps=20, ...)
#   --dry-run         check everything, print the resolved config, start nothing
#   --background      start, print where the log is, and return
#   --print-args      print the command's arguments, one a line, and stop (for tests and tools)

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
script=$(basename "$0")
export BANDIT_CWD=$PWD # relative paths that a user types begin here, those of the scripts at the repository's root

flags=() user=() background=no print_args=no
for argument in "$@"; do
    case $argument in
        --dry-run) flags+=("$argument") ;;
        --background) background=yes ;;
        --print-args) print_args=yes ;;
        --*) echo "error: unknown option $argument: use --dry-run, --background or key=value" >&2 && exit 2 ;;
        *) user+=("$argument") ;;
    esac
done

typed=${user[*]:-}

# The script's own settings. Read from the script itself: a slip in a name is then an error and not a default that runs
# in silence, and what the caller's environment happens to hold is no setting.
refuse() { echo "error: $script: $1" >&2 && exit 2; }
known=" algorithm adv_estimator train_batch_size rollout_n extra_sampling_size window_size variant own_arguments model data "
given=" $(sed -nE 's/^([A-Za-z_][A-Za-z0-9_]*)=.*/\1/p' "$0" | tr '\n' ' ')"
for name in $given; do
    [[ $known == *" $name "* ]] || refuse "it sets $name, which nothing reads; the settings are:${known% }"
done
for name in $known; do
    [[ $given == *" $name "* ]] || unset "$name"
done
needed="algorithm adv_estimator train_batch_size rollout_n model data"
for name in $needed; do
    [[ -n ${!name:-} ]] || refuse "it must set $name"
done
for name in train_batch_size rollout_n extra_sampling_size window_size; do
    [[ ${!name:-0} =~ ^(0|[1-9][0-9]*)$ ]] || refuse "$name=${!name} must be a whole number"
done
[[ $algorithm =~ ^(grpo|bandit|replay)$ ]] || refuse "algorithm=$algorithm is unknown: choose grpo, bandit or replay"
[[ -f $here/models/$model.sh ]] || refuse "model=$model is unknown: there is no Running-Bash/models/$model.sh"
[[ -f $here/data/$data.sh ]] || refuse "data=$data is unknown: there is no Running-Bash/data/$data.sh"

# ---- the study's hyperparameters (all published configurations use these) --------------------------------------------
arguments=(
    actor_rollout_ref.actor.optim.lr=1e-6             # constant
    actor_rollout_ref.actor.optim.weight_decay=0.01   # AdamW
    actor_rollout_ref.actor.optim.clip_grad=1.0
    actor_rollout_ref.actor.use_kl_loss=True
    actor_rollout_ref.actor.kl_loss_coef=0.001
    actor_rollout_ref.actor.kl_loss_type=low_var_kl
    actor_rollout_ref.actor.entropy_coeff=0
    actor_rollout_ref.actor.clip_ratio=0.2            # PPO
    actor_rollout_ref.rollout.temperature=1.0
    data.max_prompt_length=512                        # longer questions are left out, and counted
    data.max_response_length=1024
    trainer.total_epochs=100                          # an upper bound; trainer.total_training_steps ends a run earlier
    trainer.test_freq=100
    trainer.val_before_train=True
    trainer.save_freq=100
    trainer.max_actor_ckpt_to_keep=2
)

# ---- the model and the data -----------------------------------------------------------------------------------------
# shellcheck source=/dev/null
source "$here/models/$model.sh"
# shellcheck source=/dev/null
source "$here/data/$data.sh"

# ---- the arm --------------------------------------------------------------------------------------------------------
arguments+=(
    algorithm.adv_estimator="$adv_estimator"
    data.train_batch_size="$train_batch_size"
    actor_rollout_ref.rollout.n="$rollout_n"
    run.model="$model"
    run.data="$data"
)
[[ -n ${extra_sampling_size:-} ]] && arguments+=(data.extra_sampling_size="$extra_sampling_size")
[[ -n ${window_size:-} ]] && arguments+=(data.window_size="$window_size" trainer.total_epochs=1000)
[[ -n ${variant:-} ]] && arguments+=(run.variant="$variant")
# What a script sets beyond this file is named by its variant; without one, as if it had been typed.
if [[ -n ${own_arguments:-} && -n ${variant:-} ]]; then
    arguments+=("${own_arguments[@]}")
elif [[ -n ${own_arguments:-} ]]; then
    user=("${own_arguments[@]}" ${user[@]+"${user[@]}"})
fi

module=Verl.trainer.main_ppo_$algorithm
if [[ $print_args == yes ]]; then
    printf '%s\n' "$module" "${arguments[@]}" @ ${user[@]+"${user[@]}"}
    exit 0
fi

# ---- set-up, on first use ---------------------------------------------------------------------------------------------
bash "$here/setup.sh" || exit $?
python=${BANDIT_VENV:-$root/.venv}/bin/python
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
# A model for a GPU is not fetched on a machine without one: the launcher says what is missing.
if [[ ${#flags[@]} == 0 ]] && { [[ ${needs_gpu:-no} == no ]] || compgen -G "/dev/nvidia[0-9]*" >/dev/null; }; then
    (cd "$root" && prepare_model && prepare_data) || exit $?
fi

export BANDIT_COMMAND="bash Running-Bash/$script${typed:+ $typed}" # recorded with the run
command=("$python" -m "$module" ${flags[@]+"${flags[@]}"} "${arguments[@]}" @ ${user[@]+"${user[@]}"})
cd "$root"
if [[ $background == yes ]]; then
    mkdir -p Running-Results/result
    console=Running-Results/result/${script%.sh}.console
    nohup "${command[@]}" >"$console" 2>&1 </dev/null &
    echo "started in the background as process $!; follow it with: tail -f $console"
    exit 0
fi
exec "${command[@]}"
