#!/usr/bin/env bash
# Builds and links all CUDA code for one architecture, in a build folder of its own, and runs its
# tests, which skip where there is no device. A build with CUDA refuses a machine without nvcc.
#   check_build.sh SOURCE BUILD WORK WARNINGS_AS_ERRORS
# BUILD: the build without CUDA, whose core and storage are linked instead of compiled once more: they
# are the same.
# Exit 77 where there is no nvcc: the test is skipped then.
set -euo pipefail
source_folder="$1" plain="$2" work="$3" warnings_as_errors="$4"

nvcc="${CUDACXX:-$(command -v nvcc || true)}"
if [[ -z "$nvcc" && -x /usr/local/cuda/bin/nvcc ]]; then nvcc=/usr/local/cuda/bin/nvcc; fi
if [[ -z "$nvcc" ]]; then
  echo "SKIPPED: no nvcc on this machine (CUDACXX, PATH, /usr/local/cuda)"
  exit 77
fi

fail() {
  echo "check_build.sh: $*" >&2
  exit 1
}

mkdir -p "$work"
# As where no nvcc is found: one message, and no build.
rm -rf "$work/refused"
if cmake -S "$source_folder" -B "$work/refused" -G Ninja -DPERENNIAL_WITH_CUDA=ON -DPERENNIAL_NVCC= \
  >"$work/refused.log" 2>&1; then
  fail "PERENNIAL_WITH_CUDA=ON was accepted without nvcc"
fi
errors="$(grep -c '^CMake Error' "$work/refused.log" || true)"
if [[ "$errors" != 1 ]] || ! grep -q 'nvcc was not found' "$work/refused.log"; then
  cat "$work/refused.log" >&2
  fail "without nvcc the configuration gave $errors errors instead of the one that says so"
fi

arch="${PERENNIAL_TEST_CUDA_ARCH:-90}"
cmake -S "$source_folder" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
  -DPERENNIAL_WITH_CUDA=ON "-DCMAKE_CUDA_ARCHITECTURES=$arch" "-DCMAKE_CUDA_COMPILER=$nvcc" \
  -DCMAKE_CUDA_FLAGS=-Xptxas=-v "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG" -DPERENNIAL_BUILD_TESTS=ON -DPERENNIAL_BUILD_BENCHMARKS=ON \
  "-DPERENNIAL_WARNINGS_AS_ERRORS=$warnings_as_errors" >"$work/configure.log" 2>&1 || {
  cat "$work/configure.log" >&2
  fail "the configuration with CUDA failed"
}
objects=()
for name in cuda_device_test device_layer_test device_pool_test; do
  objects+=("tests/core/cuda/CMakeFiles/core_cuda_test.dir/$name.cc.o")
done
cmake --build "$work/build" -j 2 --target kernels_cuda_test bench_cuda perennial_cuda "${objects[@]}" \
  >"$work/build.log" 2>&1 || {
  grep -v -E '^(ptxas|\[|    [0-9])' "$work/build.log" >&2 || true
  fail "the build with CUDA failed"
}
# Of what was compiled just now.
if grep -q 'Compiling entry function' "$work/build.log"; then
  "$source_folder/scripts/cuda_report" --arch "$arch" --check "$work/build.log"
fi
for library in core/libperennial_core.a storage/libperennial_storage.a; do
  [[ -f "$plain/$library" ]] || fail "$plain/$library is missing: build everything first"
done
link="$(ninja -C "$work/build" -t commands -s bin/core_cuda_test |
  sed -E "s#(core/libperennial_core|storage/libperennial_storage)\.a#$plain/&#g")"
(cd "$work/build" && eval "$link") || fail "core_cuda_test does not link"

"$work/build/bin/kernels_cuda_test"
# Linked with LibTorch's CUDA libraries, whose own dependencies a machine without a device may lack.
if missing="$(ldd "$work/build/bin/core_cuda_test" | awk '/not found/ { printf "%s ", $1 }')" && [[ -n "$missing" ]]; then
  echo "core_cuda_test was linked, but not run: LibTorch's CUDA dependencies are not installed: $missing"
else
  "$work/build/bin/core_cuda_test"
fi
status=0
"$work/build/bin/bench_cuda" --smoke || status=$?
if ((status != 0 && status != 77)); then fail "bench_cuda --smoke ended with $status"; fi
