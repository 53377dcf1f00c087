# shellcheck shell=bash
# Shared by the scripts of this folder; sourced, not run.
PERENNIAL_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# fail MESSAGE: one line on standard error, named after the script that gave up, and exit 1.
fail() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}

# build_jobs: compilers to run at once. One per core, but no more than the free memory holds: a
# source that includes torch headers takes up to 1.5 GB.
build_jobs() {
  local cores free_kb fits
  cores="$(nproc)"
  free_kb="$(awk '/^MemAvailable:/ {print $2}' /proc/meminfo)"
  fits=$((free_kb / 1500000))
  if ((fits < 1)); then fits=1; fi
  echo $((cores < fits ? cores : fits))
}

# build_release TARGET [CMAKE ARGUMENT...]: configures the release preset and builds a target of it,
# quietly when there is nothing to do.
build_release() {
  local log target="$1"
  shift
  log="$(mktemp)"
  if ! (cd "$PERENNIAL_ROOT" && cmake --preset release "$@") >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    fail "the build could not be configured (see above)"
  fi
  rm -f "$log"
  (cd "$PERENNIAL_ROOT" && cmake --build --preset release --target "$target" -j "$(build_jobs)") ||
    fail "the build failed (see above)"
}
