#!/usr/bin/env bash
# Builds and links all CUDA code for one architecture, in a build folder of its own, and runs its
# tests, which skip where there is no device. A build with CUDA refuses a machine without nvcc.
#   check_build.sh SOURCE BUILD WORK WARNINGS_AS_ERRORS
# BUILD: the build without CUDA. What does not depend on CUDA is linked from there instead of compiled
# once more.
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
# The same sources together as in the plain build, whose objects are then the same.
unity="$(sed -n 's/^CMAKE_UNITY_BUILD:[A-Z]*=//p' "$plain/CMakeCache.txt")"
cmake -S "$source_folder" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
  -DPERENNIAL_WITH_CUDA=ON "-DCMAKE_CUDA_ARCHITECTURES=$arch" "-DCMAKE_CUDA_COMPILER=$nvcc" \
  -DCMAKE_CUDA_FLAGS=-Xptxas=-v "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG" -DPERENNIAL_BUILD_TESTS=ON -DPERENNIAL_BUILD_BENCHMARKS=ON \
  "-DPERENNIAL_WARNINGS_AS_ERRORS=$warnings_as_errors" "-DCMAKE_UNITY_BUILD=$unity" >"$work/configure.log" 2>&1 || {
  cat "$work/configure.log" >&2
  fail "the configuration with CUDA failed"
}
# commands OUTPUT: the command that makes it.
commands() { ninja -C "$work/build" -t commands -s "$1"; }
# The folders of objects that depend on CUDA; all others are as in the plain build.
readonly CUDA_OBJECTS='/(perennial_kernels_cuda|perennial_cuda|kernels_cuda_test|core_cuda_test|continual_cuda_test|perennial_bench_cuda_device|bench_cuda)\.dir/|^cli/CMakeFiles/perennial\.dir/src/device\.cc\.o$'
readonly PRODUCTS=(core/kernels/cuda/libperennial_kernels_cuda.a core/cuda/libperennial_cuda.a
  benchmarks/libperennial_bench_cuda_device.a bin/kernels_cuda_test bin/core_cuda_test
  bin/continual_cuda_test bin/bench_cuda bin/perennial)
mapfile -t wanted < <(
  for product in "${PRODUCTS[@]}"; do commands "$product"; done |
    tr ' ' '\n' | grep '\.o$' | grep -E "$CUDA_OBJECTS" | sort -u
)
ninja -C "$work/build" -j 2 "${wanted[@]}" >"$work/build.log" 2>&1 || {
  grep -v -E '^(ptxas|\[|    [0-9])' "$work/build.log" >&2 || true
  fail "the build with CUDA failed"
}
# Of what was compiled just now.
if grep -q 'Compiling entry function' "$work/build.log"; then
  "$source_folder/scripts/cuda_report" --arch "$arch" --check "$work/build.log"
fi
# Objects and libraries that were not compiled just now are the plain build's.
for product in "${PRODUCTS[@]}"; do
  words=()
  for word in $(commands "$product"); do
    if [[ "$word" == *.o && ! -f "$work/build/$word" ]]; then
      word="$plain/$word"
      [[ -f "$word" ]] || fail "$word is missing: build everything first"
    elif [[ "$word" == *libperennial_*.a && ! -f "$work/build/$word" && -f "$plain/$word" ]]; then
      word="$plain/$word"
    fi
    words+=("$word")
  done
  (cd "$work/build" && eval "${words[*]}") || fail "$(basename "$product") does not link"
done

"$work/build/bin/kernels_cuda_test" | tee "$work/kernels.log"
for program in core_cuda_test continual_cuda_test "bench_cuda --smoke"; do
  status=0
  # shellcheck disable=SC2086
  "$source_folder/tests/run_with_cuda.sh" "$work/build/bin/"$program || status=$?
  if ((status != 0 && status != 77)); then fail "$program ended with $status"; fi
done
# The program itself loads LibTorch's CUDA libraries when a device is asked for, and says what is missing.
if grep -q 'no CUDA device' "$work/kernels.log"; then
  if said="$("$work/build/bin/perennial" demo --device cuda --store "$work/store" 2>&1)" ||
    [[ "$(grep -c '^perennial: .*CUDA' <<<"$said")" != 1 || -e "$work/store" ]]; then
    printf '%s\n' "$said" >&2
    fail "perennial --device cuda did not say, before it made a store, why it cannot"
  fi
  echo "$said"
fi
