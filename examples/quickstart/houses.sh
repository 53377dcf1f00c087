#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# houses.sh ROWS SEED RISE: houses and what they were sold for, as CSV on standard output; prices are
# RISE percent higher than in the first year. The same arguments give the same rows everywhere.
awk -v rows="$1" -v seed="$2" -v rise="$3" '
  function random() { seed = (seed * 16807) % 2147483647; return seed / 2147483647 }
  BEGIN {
    print "size,rooms,age,distance,price"
    for (i = 0; i < rows; i++) {
      size = 40 + 160 * random(); rooms = int(1 + size / 35 + random())
      age = int(90 * random()); distance = 20 * random()
      price = 60 + 2.6 * size + 9 * rooms - 0.7 * age + 40 * exp(-distance / 4) + 24 * (random() - 0.5)
      printf "%.1f,%d,%d,%.2f,%d\n", size, rooms, age, distance, 1000 * price * (1 + rise / 100)
    }
  }'
