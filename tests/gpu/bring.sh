#!/usr/bin/env bash
# Packs what a bare machine (Python 3.12, torch with CUDA, no network) needs for tests/gpu/check.sh, where there is a network:
#   bash tests/gpu/bring.sh
# Wheels of tests/gpu/packages.py and the prepared model and data, in .cache/gpu-check/part00, part01, ... of 60 MiB, so that each
# fits a transfer of 64 MiB. Bring the parts and this repository.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started with sh
set -euo pipefail
unset CDPATH
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
python=${BANDIT_VENV:-$root/.venv}/bin/python
out=.cache/gpu-check
[[ -d .cache/models/tiny && -d Dataset/arithmetic/data ]] || {
    echo "error: model and data are not prepared: bash Running-Bash/run_grpo_0032_8_tiny_arith.sh trainer.total_training_steps=1" >&2
    exit 2
}
sources='^antlr4-python3-runtime==' # published as source only; it is pure Python
rm -rf $out && mkdir -p $out/wheels
PYTHONPATH=$root "$python" -m tests.gpu.packages > $out/packages.txt
platforms=()
for version in 2_28 2_27 2_26 2_24 2_17 2_12 2_5; do platforms+=(--platform "manylinux_${version}_x86_64"); done
"$python" -m pip download --quiet --no-deps --python-version 3.12 --implementation cp --abi cp312 --abi abi3 --abi none \
    "${platforms[@]}" --platform manylinux2014_x86_64 --platform manylinux1_x86_64 --only-binary=:all: \
    -r <(grep -vE "$sources" $out/packages.txt) -d $out/wheels
grep -E '^antlr4' $out/packages.txt | xargs "$python" -m pip wheel --quiet --no-deps -w $out/wheels
tar -c -C "$root" $out/wheels .cache/models/tiny Dataset/arithmetic/data | split -d -b 60M - $out/part
du -shc $out/wheels .cache/models/tiny Dataset/arithmetic/data && ls -sh $out/part*
