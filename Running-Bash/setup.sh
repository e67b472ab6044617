#!/usr/bin/env bash
# Sets up everything a run or a test needs, once: a virtual environment in .venv and the packages of
# requirements.txt (CPU) or requirements-gpu.txt (where there is an NVIDIA GPU). Run it again at any time: what is done
# is skipped, what was interrupted goes on, and once done nothing needs the network.
#
#   bash Running-Bash/setup.sh            pick by what is there
#   bash Running-Bash/setup.sh --cpu      the CPU packages, also on a machine with a GPU
#   bash Running-Bash/setup.sh --venv     the empty environment only
#   PYTHON=python3.11 bash Running-Bash/setup.sh     another Python (3.10 to 3.12)

[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh
set -euo pipefail
unset CDPATH
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${BANDIT_VENV:-$root/.venv}

requirements=requirements.txt size="about 0.9 GB (torch for CPU; with the CUDA libraries that PyPI ships for Linux, about 4 GB)"
if [[ ${1:-} != --cpu ]] && compgen -G "/dev/nvidia[0-9]*" >/dev/null; then
    requirements=requirements-gpu.txt size="about 9 GB (torch with CUDA, vllm)"
fi
# Done means: these very files were installed to the end. The mark is the last thing written.
mark=$venv/.installed-$(cat "$root"/requirements-common.txt "$root/$requirements" "$root/pyproject.toml" | cksum | cut -d' ' -f1)
[[ -f $mark ]] && exit 0

python=${PYTHON:-}
for candidate in ${python:+"$python"} python3.11 python3.12 python3.10 python3; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
        python=$candidate && break
    fi
    python=
done
if [[ -z $python ]]; then
    echo "error: no Python 3.10 to 3.12 was found; install one, or name it: PYTHON=/path/to/python3.11 bash $0" >&2
    exit 2
fi

[[ ${1:-} == --venv ]] ||
    echo "setting up $venv with $("$python" --version) from $requirements: $size to download, a few minutes, once" >&2
if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    "$python" -m venv --clear "$venv" || {
        echo "error: $python can't make a virtual environment: install its venv package (on Debian: python3-venv)" >&2
        exit 2
    }
fi
[[ ${1:-} == --venv ]] && exit 0
"$venv/bin/python" -m pip install --quiet --upgrade "pip>=24" 2>&1 | grep -v "^WARNING" >&2 || true
"$venv/bin/python" -m pip install -qq --disable-pip-version-check -r "$root/$requirements" >&2 || {
    echo "error: the packages could not be installed; check the network and run the same command again: it goes on" >&2
    exit 2
}
# The project itself, editable: `import Verl` and `python -m Verl...` then work from any folder.
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e "$root" >&2 || {
    echo "error: the project could not be installed into $venv; the lines above say why" >&2
    exit 2
}
touch "$mark"
echo "set-up done" >&2
