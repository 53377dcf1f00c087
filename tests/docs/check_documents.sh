#!/usr/bin/env bash
# check_documents.sh ROOT PROGRAM: for every Markdown file of the project checks that
#   - each `perennial COMMAND` that stands in code answers --help, and knows the --flags shown with it;
#   - each ./scripts/NAME that stands in code is an executable file;
#   - each link to a file of the project leads to one.
# (The C++ example of README.md is compiled and run by tests/package.)
set -euo pipefail
root="$1"
program="$2"
failures=0
checked=0

wrong() {
  echo "$*" >&2
  failures=$((failures + 1))
}

# code_lines FILE: the lines of the ```sh blocks without comments, and the `spans` elsewhere.
code_lines() {
  awk '
    /^ *```/ { if (fence) fence = 0; else { fence = 1; shell = ($0 ~ /```sh$/) } next }
    fence && shell { sub(/ +#.*/, ""); sub(/^\$ /, ""); print; next }
    fence { next }
    { line = $0
      while (match(line, /`[^`]+`/)) {
        print substr(line, RSTART + 1, RLENGTH - 2)
        line = substr(line, RSTART + RLENGTH)
      } }' "$1"
}

declare -A help
# help_of COMMAND: sets help[COMMAND], or returns 1 where the program does not know the command.
help_of() {
  [[ -v "help[$1]" ]] || help[$1]="$("$program" "$1" --help 2>&1)" || { unset "help[$1]"; return 1; }
  [[ -n "${help[$1]}" ]]
}

check_command_line() {
  local file="$1" command="$2" words="$3" flag
  if ! help_of "$command"; then
    wrong "$file: 'perennial $command' does not answer --help"
    return
  fi
  checked=$((checked + 1))
  for flag in $(grep -oE -- '(^| )--[a-z][a-z-]*' <<<"$words" || true); do
    grep -qE -- "(^|[^a-z-])$flag([^a-z-]|$)" <<<"${help[$command]}" ||
      wrong "$file: 'perennial $command' has no flag $flag"
  done
}

while IFS= read -r file; do
  name="${file#"$root"/}"
  while IFS= read -r line; do
    if [[ "$line" =~ (^|/)perennial\ ([a-z]+)(.*)$ ]]; then
      check_command_line "$name" "${BASH_REMATCH[2]}" "${BASH_REMATCH[3]}"
    fi
    if [[ "$line" =~ ^(\./)?scripts/([a-z_]+)(.*)$ ]]; then
      checked=$((checked + 1))
      script="${BASH_REMATCH[2]}"
      rest="${BASH_REMATCH[3]}"
      [[ -x "$root/scripts/$script" ]] || wrong "$name: there is no program scripts/$script"
      # The demonstration's arguments are those of the program's command.
      if [[ "$script" == demo ]]; then check_command_line "$name" demo "$rest"; fi
    fi
  done < <(code_lines "$file")
  while IFS= read -r target; do
    checked=$((checked + 1))
    [[ -e "$(dirname "$file")/${target%%#*}" ]] || wrong "$name: the link to $target leads nowhere"
  done < <(awk '/^ *```/ { fence = !fence } !fence' "$file" | grep -oE '\]\([^)# ][^) ]*\)' | sed 's/^](//; s/)$//' | grep -vE '^[a-z]+:' || true)
done < <(find "$root" -name '*.md' -not -path '*/build/*' -not -path '*/.*/*' | sort)

((checked > 0)) || wrong "nothing was found to check"
echo "$checked commands, scripts and links checked, $failures wrong"
((failures == 0))
