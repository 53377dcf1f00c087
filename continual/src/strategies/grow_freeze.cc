// SPDX-License-Identifier: Apache-2.0
// Grow and freeze: a generation of experts for each experience.
#include <algorithm>
#include <optional>

#include "strategies/generations.h"
#include "strategies/strategies.h"

namespace perennial::continual {

namespace {

// A generation for each experience, frozen after it; none for one that returns, where asked for.
// Isolated routing learns the gate's statistics as the data streams by, of the stream's rows only;
// shared routing unmasks the new rows, an explicit and logged event, when their experience starts.
class GrowFreeze : public Strategy {
 public:
  void before_experience(StrategyContext& context) override {
    if (!context.model.learns_by_gradient()) return;  // its pool is frozen from the start
    PeerImpl& peer = *context.model.peer();
    returned_ = returned(context);
    if (returned_) {
      context.model.assign(context.experience, *returned_);
      return;
    }
    if (!peer.pool().open_generation()) {
      context.model.assign(context.experience, open_generation(context));
    }
    if (peer.has_masked()) {
      peer.unmask();
      context.log("unmask", boost::json::object{{"experience", context.experience}});
    }
  }

  bool skips_experience() const override { return returned_.has_value(); }

  void before_step(StrategyContext& context, TrainingBatch& batch) override {
    if (context.model.gate() != nullptr) {
      context.model.gate()->observe(batch.fresh_x(), context.model.gate()->generations() - 1,
                                    batch.fresh_y());
    }
  }

  void after_experience(StrategyContext& context) override {
    if (returned_ || !context.model.learns_by_gradient()) return;
    freeze_generation(context);
  }

  bool extend(const StreamShape&, const StreamShape&) override { return true; }

 private:
  // By the first examples of the experience.
  static std::optional<std::int64_t> returned(StrategyContext& context) {
    const TrainOptions& options = context.config.train;
    if (options.return_novelty == 0 || context.experience == 0) return std::nullopt;
    const std::int64_t count =
        std::min(options.return_examples, context.stream.train_size(context.experience));
    return returned_to(
        context, context.stream.train_batch(context.experience, 0, 0, count, options.train_seed).x);
  }

  std::optional<std::int64_t> returned_;  // of the experience that goes on
};

}  // namespace

StrategyPointer make_grow_freeze() { return std::make_unique<GrowFreeze>(); }

}  // namespace perennial::continual
