#!/usr/bin/env bash
# Sets up everything a run or a test needs, once: a virtual environment in .venv and the packages of
# requirements.txt (CPU) or requirements-gpu.txt (where there is an NVIDIA GPU), by uv where it is there, else by pip: the
# same pins. Run it again at any time: what is done is skipped, what was interrupted goes on, and once done nothing needs
# the network.
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
uv=$(command -v uv || true)
if [[ -z $python && -z $uv ]]; then
    echo "error: no Python 3.10 to 3.12 was found; install one, or name it: PYTHON=/path/to/python3.11 bash $0" >&2
    exit 2
fi

fail() { echo "error: $1" >&2 && exit 2; }

# Carries out a command in silence; every few seconds a line says that it goes on, and its output follows if it fails.
log=$venv/setup.log job=
trap '[[ -z $job ]] || kill "$job" 2>/dev/null' EXIT
trap 'exit 130' INT TERM HUP
quietly() {
    local what=$1 began=$SECONDS every=${BANDIT_SETUP_SECONDS:-10} next
    shift && next=$((SECONDS + every))
    "$@" >"$log" 2>&1 </dev/null &
    job=$!
    while kill -0 "$job" 2>/dev/null; do
        sleep 0.2
        if ((SECONDS >= next)); then
            next=$((SECONDS + every))
            echo "  $what: $((SECONDS - began)) s, $(du -sm "$venv" | cut -f1) MB so far; $(tail -n 1 "$log" | cut -c -80)" >&2
        fi
    done
    if ! wait "$job"; then
        job=
        tail -n 20 "$log" >&2
        return 1
    fi
    job=
}

[[ ${1:-} == --venv ]] || echo "first use: making $venv from $requirements (${uv:+by uv, }$size to download, two to ten minutes, once)" >&2
if ! "$venv/bin/python" -c '' 2>/dev/null; then
    if [[ -n $uv ]]; then
        "$uv" venv --quiet --clear --seed --python "${python:-3.11}" "$venv" || fail "uv could not make $venv; the lines above say why"
    else
        "$python" -m venv --clear "$venv" ||
            fail "$python can't make a virtual environment: install its venv package (on Debian: python3-venv)"
    fi
fi
[[ ${1:-} == --venv ]] && exit 0
by_pip() { "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off "$@"; }
if [[ -n $uv ]]; then # which does not read the mirrors of a pip.conf: then pip does
    install() { "$uv" pip install --python "$venv/bin/python" "$@" || by_pip "$@"; }
else
    install() { by_pip "$@"; }
    quietly pip install --upgrade "pip>=24" || true
fi
quietly packages install -r "$root/$requirements" ||
    fail "the packages could not be installed; check the network and run the same command again: it goes on. (Through a SOCKS proxy pip can't go; uv can: https://docs.astral.sh/uv)"
# The project itself, editable: `import Verl` and `python -m Verl...` then work from any folder.
quietly "the project" install --no-deps --no-build-isolation -e "$root" ||
    fail "the project could not be installed into $venv; the lines above say why"
touch "$mark"
echo "set-up done in $SECONDS s; next: the model and the data of what you started, where they are not there yet" >&2
