# shellcheck shell=bash
# The same logs give the same bytes on whichever processor: one thread, and one set of OpenBLAS's kernels (of ten years' processors).

export OMP_NUM_THREADS=1 # figures are drawn in a process per core
if [[ -z ${OPENBLAS_CORETYPE:-} ]] && grep -qsw avx2 /proc/cpuinfo; then
    export OPENBLAS_CORETYPE=Haswell
fi
