#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run_document.sh DOCUMENT PROGRAM [FILE...]: runs the lines after "$ " of the document's ```sh blocks in
# an empty folder, in their order, with PROGRAM and the FILEs at hand; each must succeed, and print
# what the document shows below it, where that is no measurement of time: "..." stands for any rest.
set -euo pipefail
document="$1"
program="$(readlink -f "$2")"
shift 2
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
for file in "$@"; do cp "$file" "$work/"; done
mkdir "$work/bin"
ln -s "$program" "$work/bin/perennial"
export PATH="$work/bin:$PATH" OMP_WAIT_POLICY=passive
lines="$work/lines"
awk '/^ *```/ { if (fence) fence = 0; else { fence = 1; shell = ($0 ~ /```sh$/) } next }
     fence && shell' "$(readlink -f "$document")" >"$lines"
cd "$work"
failures=0
ran=0
command=""
expected=""
check() {
  [[ -n "$command" ]] || return 0
  ran=$((ran + 1))
  local printed
  if ! printed="$(bash -o pipefail -c "$command" 2>"$work/err" </dev/null)"; then
    echo "failed: $command" >&2
    cat "$work/err" >&2
    failures=$((failures + 1))
  fi
  # What a document shows is compared line by line, a trailing "..." with the start of the line.
  local line wanted
  while IFS= read -r wanted; do
    IFS= read -r line <&3 || line="(nothing)"
    if [[ "$wanted" == *... ]]; then
      [[ "$line" == "${wanted%...}"* ]] && continue
    elif [[ "$line" == "$wanted" ]]; then
      continue
    fi
    printf '%s\n  shown:   %s\n  printed: %s\n' "$command" "$wanted" "$line" >&2
    failures=$((failures + 1))
    break
  done < <(printf '%s' "$expected") 3< <(printf '%s\n' "$printed")
}
while IFS= read -r text; do
  if [[ "$text" == '$ '* ]]; then
    check
    command="${text#\$ }"
    expected=""
  else
    expected+="$text"$'\n'
  fi
done <"$lines"
check
((ran > 0)) || { echo "$document has no commands" >&2; exit 1; }
echo "$ran commands, $failures wrong"
((failures == 0))
