// SPDX-License-Identifier: Apache-2.0
// Grow and freeze: a generation of experts for each experience.
#include <algorithm>
#include <limits>
#include <optional>

#include "strategies/strategies.h"

namespace perennial::continual {

namespace {

namespace json = boost::json;

// A generation for each experience, frozen after it; none for one that returns, where asked for.
// Isolated routing learns the gate's statistics as the data streams by, of the stream's rows only;
// shared routing unmasks the new rows, an explicit and logged event, when their experience starts.
class GrowFreeze : public Strategy {
 public:
  void before_experience(StrategyContext& context) override {
    if (!context.model.learns_by_gradient()) return;  // its pool is frozen from the start
    PeerImpl& peer = *context.model.peer();
    returned_ = returned_to(context);
    if (returned_) {
      context.model.assign(context.experience, *returned_);
      return;
    }
    if (!peer.pool().open_generation()) {
      const Generation& generation = peer.grow();
      if (context.model.gate() != nullptr) context.model.gate()->add_generation();
      context.log("grow", json::object{{"experience", context.experience},
                                       {"generation", generation.index},
                                       {"first_row", generation.first_row},
                                       {"rows", generation.rows},
                                       {"cols", generation.cols}});
      context.model.assign(context.experience, generation.index);
    }
    if (peer.has_masked()) {
      peer.unmask();
      context.log("unmask", json::object{{"experience", context.experience}});
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
    PeerImpl& peer = *context.model.peer();
    const std::uint32_t generation = *peer.pool().open_generation();
    const storage::Digest digest = peer.freeze();
    context.log("freeze", json::object{{"experience", context.experience},
                                       {"generation", generation},
                                       {"digest", digest.hex()}});
    if (context.model.gate() != nullptr) context.model.gate()->solve();
  }

  bool extend(const StreamShape&, const StreamShape&) override { return true; }

 private:
  // The generation to which the first examples of the experience are least foreign, if they are
  // less so than return_novelty. Decided by their inputs alone, from the gate's statistics.
  static std::optional<std::int64_t> returned_to(StrategyContext& context) {
    const TrainOptions& options = context.config.train;
    const AnalyticGate* gate = context.model.gate();
    if (options.return_novelty == 0 || gate == nullptr || context.experience == 0) {
      return std::nullopt;
    }
    const std::int64_t count =
        std::min(options.return_examples, context.stream.train_size(context.experience));
    const Batch first =
        context.stream.train_batch(context.experience, 0, 0, count, options.train_seed);
    std::int64_t nearest = 0;
    double least = std::numeric_limits<double>::infinity();
    json::array all;
    const bool open = context.model.peer()->pool().open_generation().has_value();
    for (std::int64_t g = 0; g < gate->generations() - (open ? 1 : 0); ++g) {
      const double novelty = gate->novelty(first.x, g);
      all.push_back(novelty);
      if (novelty < least) {
        least = novelty;
        nearest = g;
      }
    }
    const bool returns = least < options.return_novelty;
    context.log("novelty", json::object{{"experience", context.experience},
                                        {"novelty", std::move(all)},
                                        {"returns", returns}});
    if (!returns) return std::nullopt;
    return nearest;
  }

  std::optional<std::int64_t> returned_;  // of the experience that goes on
};

}  // namespace

StrategyPointer make_grow_freeze() { return std::make_unique<GrowFreeze>(); }

}  // namespace perennial::continual
