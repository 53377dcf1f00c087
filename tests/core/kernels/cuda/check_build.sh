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
cmake -S "$source_folder" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
  -DPERENNIAL_WITH_CUDA=ON "-DCMAKE_CUDA_ARCHITECTURES=$arch" "-DCMAKE_CUDA_COMPILER=$nvcc" \
  -DCMAKE_CUDA_FLAGS=-Xptxas=-v "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG" -DPERENNIAL_BUILD_TESTS=ON -DPERENNIAL_BUILD_BENCHMARKS=ON \
  "-DPERENNIAL_WARNINGS_AS_ERRORS=$warnings_as_errors" >"$work/configure.log" 2>&1 || {
  cat "$work/configure.log" >&2
  fail "the configuration with CUDA failed"
}
# objects FOLDER TARGET PATTERN: the objects that the target makes of the folder's sources.
objects() {
  local source
  for source in "$source_folder/$1/"$3; do
    echo "$1/CMakeFiles/$2.dir/${source#"$source_folder/$1/"}.o"
  done
}
# What depends on CUDA.
mapfile -t wanted < <(
  objects core/kernels/cuda perennial_kernels_cuda 'src/*.cu'
  objects core/cuda perennial_cuda 'src/*.cc'
  objects tests/core/kernels/cuda kernels_cuda_test '*_test.cc'
  objects tests/core/cuda core_cuda_test cuda_device_test.cc
  objects tests/continual/device continual_cuda_test cuda_placement.cc
  objects benchmarks perennial_bench_cuda_device cuda_device.cu
  objects benchmarks bench_cuda bench_cuda.cc
  objects cli perennial src/device.cc
)
ninja -C "$work/build" -j 2 "${wanted[@]}" >"$work/build.log" 2>&1 || {
  grep -v -E '^(ptxas|\[|    [0-9])' "$work/build.log" >&2 || true
  fail "the build with CUDA failed"
}
# Of what was compiled just now.
if grep -q 'Compiling entry function' "$work/build.log"; then
  "$source_folder/scripts/cuda_report" --arch "$arch" --check "$work/build.log"
fi
# make TARGET [TWIN]: from what is there. Objects and libraries that were not compiled just now are
# the plain build's; TWIN is that build's program with the same sources.
make() {
  local target="$1" name twin word words=()
  name="$(basename "$target")"
  twin="${2:-$name}"
  for word in $(ninja -C "$work/build" -t commands -s "$target"); do
    if [[ "$word" == *.o && ! -f "$work/build/$word" ]]; then
      word="$plain/${word//$name.dir/$twin.dir}"
      [[ -f "$word" ]] || fail "$word is missing: build everything first"
    elif [[ "$word" == *libperennial_*.a && ! -f "$work/build/$word" && -f "$plain/$word" ]]; then
      word="$plain/$word"
    fi
    words+=("$word")
  done
  (cd "$work/build" && eval "${words[*]}") || fail "$name does not link"
}
make core/kernels/cuda/libperennial_kernels_cuda.a
make core/cuda/libperennial_cuda.a
make benchmarks/libperennial_bench_cuda_device.a
make bin/kernels_cuda_test
make bin/core_cuda_test core_device_test
make bin/continual_cuda_test continual_device_test
make bin/bench_cuda bench_cuda_emulated
make bin/perennial

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
