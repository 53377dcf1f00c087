#!/usr/bin/env bash
# Includes point down only: what a room may not know, no file of it includes.
#   check_includes.sh SOURCE_FOLDER
set -euo pipefail
cd "$1"
bad=0
# forbid FOLDERS PATTERN: no source below the folders includes what matches.
forbid() {
  local folders=$1 pattern=$2 found folder
  for folder in $folders; do
    [ -d "$folder" ] || { echo "there is no folder $folder" && bad=1; }
  done
  # shellcheck disable=SC2086
  found=$(grep -rnE --include='*.h' --include='*.cc' --include='*.cu' --include='*.cuh' \
    "^ *# *include *[<\"]($pattern)" $folders || true)
  if [ -n "$found" ]; then
    printf '%s\n' "$found" | sed "s|^|points up from $folders: |"
    bad=1
  fi
}
torch='torch/|ATen/|c10/'
forbid "storage" "$torch|perennial/(kernels|core|continual|cli)/"
forbid "core/kernels" "$torch|perennial/(storage|core|continual|cli)/|(pool|nn)/"
forbid "core" "rocksdb/|perennial/(continual|cli)/"
forbid "core/src/pool" "nn/|perennial/core/(peer|expert_layers|gate|autoencoder_gate|analytic_head|shard_file|unlearn)[.]h"
forbid "continual" "rocksdb/|perennial/cli/|(pool|nn)/"
forbid "cli" "rocksdb/"
forbid "storage core continual cli" "gtest/|gmock/|benchmark/"
# Within continual each room knows those before it alone.
forbid "continual/src/data" "(task|stream|metrics|model|strategies|report|run)/"
forbid "continual/src/stream" "(task|metrics|model|strategies|report|run)/"
forbid "continual/src/task" "(model|metrics|strategies|report|run)/"
forbid "continual/src/model" "(metrics|strategies|report|run)/"
forbid "continual/src/metrics" "(strategies|report|run)/"
forbid "continual/src/strategies" "(report|run)/"
forbid "continual/src/report" "(model|strategies|run)/"
exit $bad
