#!/usr/bin/env bash
# run_with_cuda.sh PROGRAM [ARGUMENTS]: runs a program that is linked with LibTorch's CUDA libraries. Exit 77,
# which skips a test, where those lack their own dependencies (cuBLAS, cuDNN, ...), as on machines
# without a device.
set -euo pipefail
missing="$(ldd "$1" | awk '/not found/ { printf " %s", $1 }')"
if [[ -n "$missing" ]]; then
  echo "SKIPPED: LibTorch's CUDA dependencies are not installed:$missing"
  exit 77
fi
exec "$@"
