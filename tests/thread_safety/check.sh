#!/usr/bin/env bash
# check.sh CLANG FOLDER SOURCE...: Clang's thread-safety analysis of the sources, compiled as one.
# Ends with 77, a skipped test, where there is no Clang.
set -euo pipefail
readonly CLANG="$1" FOLDER="$2"
shift 2
if [[ ! -x "$CLANG" ]]; then
  echo "skipped: no clang++ was found; the analysis is Clang's"
  exit 77
fi
analyse() {
  "$CLANG" -x c++ -std=c++20 -fsyntax-only -Wthread-safety -Werror=thread-safety \
    -I "$FOLDER/storage/include" -I "$FOLDER/storage/src" \
    -I "$FOLDER/core/include" -I "$FOLDER/core/src" -
}
printf '#include "%s"\n' "$@" | analyse
# The marks have to mean something to this compiler.
if analyse <"$(dirname "$0")/unguarded.cc" 2>/dev/null; then
  echo "a field was read without its mutex, and nothing was said" >&2
  exit 1
fi
