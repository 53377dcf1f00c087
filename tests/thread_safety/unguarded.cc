// SPDX-License-Identifier: Apache-2.0
// What the analysis must refuse.
#include "perennial/storage/mutex.h"

struct Counter {
  int read() { return count; }
  perennial::storage::Mutex mutex;
  int count PERENNIAL_GUARDED_BY(mutex) = 0;
};
