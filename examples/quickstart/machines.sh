#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# machines.sh ROWS SEED STATE...: readings of machines in these states, as CSV on standard output.
# The same arguments give the same rows everywhere. About one cell in fifty has no value.
rows="$1" seed="$2"
shift 2
awk -v rows="$rows" -v seed="$seed" -v names="$*" '
  function random() { seed = (seed * 16807) % 2147483647; return seed / 2147483647 }
  function reading(centre, spread, value) {
    value = centre + spread * (random() + random() + random() - 1.5)
    return random() < 0.02 ? "" : sprintf("%.2f", value)
  }
  BEGIN {
    # temperature, vibration, current, speed of each state
    split("55 2.0 4.0 1480", at_ok); split("71 5.5 4.4 1470", at_worn)
    split("58 4.0 3.1 1390", at_loose); split("88 2.3 5.2 1455", at_blocked)
    n = split(names, state)
    print "temperature,vibration,current,speed,state"
    for (i = 0; i < rows; i++) {
      name = state[1 + i % n]
      for (k = 1; k <= 4; k++) {
        if (name == "ok") centre[k] = at_ok[k]
        else if (name == "worn-bearing") centre[k] = at_worn[k]
        else if (name == "loose-belt") centre[k] = at_loose[k]
        else centre[k] = at_blocked[k]
      }
      printf "%s,%s,%s,%s,%s\n", reading(centre[1], 9), reading(centre[2], 1.5),
             reading(centre[3], 0.8), reading(centre[4], 45), name
    }
  }'
