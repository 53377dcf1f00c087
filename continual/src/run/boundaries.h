// SPDX-License-Identifier: Apache-2.0
// Where each experience of a run began: what going back to it needs and the state does not tell.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <optional>
#include <vector>

#include "perennial/storage/page_reader.h"
#include "run/run_record.h"
#include "run/run_state.h"

namespace perennial::continual {

struct Boundary {
  std::int64_t steps = 0;                        // of the run until then
  std::optional<double> gate_accuracy;           // at the evaluation before it
  RecordMark record = {};                        // of the run's record
  std::vector<std::vector<double>> errors = {};  // as RunState's
};

// Carried from note to note of a run's commits, so it outlives the commits that it tells of; in no
// digest. Element e is of the state before experience e was learnt.
class Boundaries {
 public:
  // Of the newest commit that has them; empty for a run that an older version began.
  static Boundaries load(const storage::PageReader& store);

  // The run is between two experiences, and this is the state to come back to.
  void mark(const RunState& state, const RecordMark& record);
  const Boundary* find(std::int64_t experience) const;
  // Of their records, the newest first.
  std::vector<RecordMark> records() const;
  // Forgets those after `experience`.
  void cut(std::int64_t experience);
  void add_to(boost::json::object& note) const;

 private:
  std::vector<std::optional<Boundary>> boundaries_;
};

}  // namespace perennial::continual
