// SPDX-License-Identifier: Apache-2.0
// What the replay strategies share: a memory that fills as the stream goes by.
#pragma once

#include "strategies/replay_buffer.h"
#include "strategies/shared_options.h"
#include "strategies/strategies.h"

namespace perennial::continual {

// Appends rows of the memory to each step, then adds the step's fresh rows to it (in the first pass
// over an experience, so that every example is seen once), or after the experience all of its
// examples (FillKind). The cost of a step
// does not depend on the experience, and on the memory's size only by a look at M numbers. With M =
// 0 nothing is appended or kept.
class Replay : public Strategy {
 public:
  // Which examples are replayed: all that the memory has, or those of earlier experiences, once it
  // has such.
  enum class From : std::uint8_t { all, earlier };

  // `samples`: how many samples of replay_batch rows a step gets; 0 keeps the memory without
  // replaying.
  Replay(std::string name, const RunConfig& config, const StreamShape& shape, From from,
         bool with_outputs, int samples);

  // The options of a memory, `own` before the seed.
  static std::vector<const DeclaredOption*> options(std::vector<const DeclaredOption*> own);
  // A buffer that balances classes where there are none.
  static void refuse(const RunConfig& config);

  void before_step(StrategyContext& context, TrainingBatch& batch) override;
  void after_step(StrategyContext& context, const TrainingBatch& batch) override;
  void after_experience(StrategyContext& context) override;
  void visit_state(StateVisitor& visitor) override;
  // Kept outputs have the classes that there were; so has a ring its slots.
  bool extend(const StreamShape& before, const StreamShape& now) override;

 protected:
  // What the step's samples are, in the order of their rows; empty while the memory is.
  struct Sample {
    std::int64_t begin = 0;  // row of the batch
    Examples examples;
    std::int64_t count() const { return examples.y.size(0); }
  };
  const std::vector<Sample>& replayed() const { return replayed_; }

 private:
  std::string name_;
  ReplayBuffer memory_;
  FillKind fill_;
  std::int64_t draw_;
  From from_;
  bool with_outputs_;
  int samples_;
  std::vector<Sample> replayed_;
};

}  // namespace perennial::continual
