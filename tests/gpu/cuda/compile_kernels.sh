#!/bin/sh
# compile_kernels.sh NVCC ROOT WRITER ARCHITECTURE... - what WRITER prints must be CUDA for the first and the last of
# the architectures, without a warning.
set -e
nvcc=$1 root=$2 writer=$3
shift 3
lowest=$1
for highest in "$@"; do :; done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$writer" >"$folder/kernels.cu"
for arch in $lowest $highest; do
    "$nvcc" -std=c++17 -O1 --fmad=false -Werror all-warnings -I "$root" --cubin -arch="sm_$arch" \
        -o "$folder/$arch.cubin" "$folder/kernels.cu" &
    pids="$pids $!"
done
for pid in $pids; do
    wait "$pid"
done
