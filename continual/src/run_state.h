// SPDX-License-Identifier: Apache-2.0
// What a commit keeps of a run beside model and optimizers: where it is and what it has measured.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "perennial/continual/anytime.h"
#include "perennial/continual/dataset.h"
#include "perennial/continual/metrics.h"
#include "perennial/continual/run_config.h"
#include "perennial/storage/page_store.h"

namespace perennial::continual {

// The next step to take. A function of this and the configuration decides every batch to come.
struct Position {
  std::int64_t experience = 0;
  std::int64_t epoch = 0;
  std::int64_t step = 0;
  bool at_start() const { return epoch == 0 && step == 0; }
};

struct RunState {
  RunConfig config;
  Preprocessing preprocessing;
  std::vector<std::string> label_names;
  storage::Digest data_digest;  // of the data set
  Position position;
  std::int64_t steps = 0;  // of the whole run
  bool finished = false;
  AccuracyMatrix matrix{1};
  AnytimeCurve anytime;
  std::optional<double> gate_accuracy;  // at the last evaluation

  void add_to_commit(storage::CommitRequest& request) const;
};

// not_found when the store holds no run; throws DataError for a malformed one.
storage::Result<RunState> load_run_state(const storage::PageReader& store);

}  // namespace perennial::continual
