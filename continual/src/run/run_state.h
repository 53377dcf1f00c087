// SPDX-License-Identifier: Apache-2.0
// What a commit keeps of a run beside model and optimizers: where it is and what it has measured.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "perennial/continual/anytime.h"
#include "perennial/continual/dataset.h"
#include "perennial/continual/follow.h"
#include "perennial/continual/metrics.h"
#include "perennial/continual/run_config.h"
#include "perennial/core/dense_entries.h"
#include "perennial/core/participant.h"
#include "perennial/continual/strategy.h"
#include "perennial/continual/task.h"
#include "perennial/storage/page_store.h"

namespace perennial::continual {

// The next step to take. A function of this and the configuration decides every batch to come.
struct Position {
  std::int64_t experience = 0;
  std::int64_t epoch = 0;
  std::int64_t step = 0;
  bool at_start() const { return epoch == 0 && step == 0; }
};

// A run that follows a growing table: after which row, and how many make an experience.
struct FollowState {
  std::string file;
  FollowPosition position;  // after the last rows that were taken from it
  std::int64_t rows = 0;
  bool current = true;  // they are the run's last experience
  // Training rows of that experience, as read (x, y): a pipe does not give them again. None once it
  // is learnt.
  Dataset pending = {};
};

struct RunState {
  RunConfig config;
  Preprocessing preprocessing;
  Preprocessing targets;  // of a regression; else empty
  std::vector<std::string> label_names;
  storage::Digest data_digest;  // of the data set
  Position position;
  std::int64_t steps = 0;  // of the whole run
  bool finished = false;
  ScoreMatrix matrix{1};
  AnytimeCurve anytime;
  std::optional<double> gate_accuracy;  // at the last evaluation
  // Of a regression, at the last evaluation: for each test set the root mean squared error of each
  // target. Else empty.
  std::vector<std::vector<double>> errors;
  // Each generation that was unlearned while later ones stayed, and how many experiences had been
  // learnt by then.
  std::vector<std::pair<std::uint32_t, std::int64_t>> unlearned_after;
  // Those unlearned since the last evaluation: what was measured is of a model that had them.
  std::vector<std::uint32_t> unlearned_since() const;
  // Of a run over stream single, which may go on with further data: what further experiences are
  // measured on, and how many classes were known after each experience.
  std::vector<Dataset> tests;  // as read: x and y
  std::vector<std::int64_t> classes_after;
  std::optional<FollowState> follow;

  std::shared_ptr<const Task> task() const {
    return make_task(config.stream, label_names, targets);
  }
  // What a strategy has to know of the run.
  StreamShape shape() const {
    return {std::ssize(label_names), matrix.experiences(), preprocessing};
  }
  // Puts into a commit's note where the data are: no part of the state, whose data are known by
  // their digest.
  void note_paths(boost::json::object& note) const;
  void offer(DenseEntries::Offer& offer) const;
};

// A run's share of commits.
class RunEntries : public Participant {
 public:
  explicit RunEntries(const RunState& state) : state_(state) {}

  void add_to_commit(storage::CommitRequest& request) override;
  void committed() override { entries_.committed(); }
  void commit_failed() override { entries_.commit_failed(); }
  // The state was loaded from there: its test sets are not offered again.
  void loaded(const storage::PageReader& store);

 private:
  const RunState& state_;
  DenseEntries entries_;
};

// not_found when the store holds no run; throws DataError for a malformed one.
storage::Result<RunState> load_run_state(const storage::PageReader& store);

}  // namespace perennial::continual
