// SPDX-License-Identifier: Apache-2.0
// Naive, joint, and grow_freeze.
#include "perennial/continual/strategy.h"

#include <algorithm>
#include <limits>
#include <optional>

namespace perennial::continual {

namespace {

namespace json = boost::json;

// Fine-tuning: nothing is done against forgetting.
class Naive : public Strategy {};

// One pass structure over the union of all experiences.
class Joint : public Strategy {
 public:
  Stream training_stream(const Stream& stream) const override { return stream.joint(); }
};

// A generation for each experience, frozen after it; none for one that returns, where asked for.
// Isolated routing learns the gate's statistics as the data streams by; shared routing unmasks the
// new rows, an explicit and logged event, when their experience starts.
class GrowFreeze : public Strategy {
 public:
  void before_experience(StrategyContext& context, std::int64_t experience) override {
    if (!context.model.learns_by_gradient()) return;  // its pool is frozen from the start
    PeerImpl& peer = *context.model.peer();
    returned_ = returned_to(context, experience);
    if (returned_) {
      context.model.assign(experience, *returned_);
      return;
    }
    if (!peer.pool().open_generation()) {
      const Generation& generation = peer.grow();
      if (context.model.gate() != nullptr) context.model.gate()->add_generation();
      context.log("grow", json::object{{"experience", experience},
                                       {"generation", generation.index},
                                       {"first_row", generation.first_row},
                                       {"rows", generation.rows},
                                       {"cols", generation.cols}});
      context.model.assign(experience, generation.index);
    }
    if (peer.has_masked()) {
      peer.unmask();
      context.log("unmask", json::object{{"experience", experience}});
    }
  }

  void before_step(StrategyContext& context, std::int64_t, const Batch& batch) override {
    if (context.model.gate() != nullptr) {
      context.model.gate()->observe(batch.x, context.model.gate()->generations() - 1, batch.y);
    }
  }

  bool skips_experience() const override { return returned_.has_value(); }

  void after_experience(StrategyContext& context, std::int64_t experience) override {
    if (returned_ || !context.model.learns_by_gradient()) return;
    PeerImpl& peer = *context.model.peer();
    const std::uint32_t generation = *peer.pool().open_generation();
    const storage::Digest digest = peer.freeze();
    context.log("freeze", json::object{{"experience", experience},
                                       {"generation", generation},
                                       {"digest", digest.hex()}});
    if (context.model.gate() != nullptr) context.model.gate()->solve();
  }

 private:
  // The generation to which the first examples of the experience are least foreign, if they are
  // less so than return_novelty. Decided by their inputs alone, from the gate's statistics.
  static std::optional<std::int64_t> returned_to(StrategyContext& context,
                                                 std::int64_t experience) {
    const TrainOptions& options = context.config.train;
    const AnalyticGate* gate = context.model.gate();
    if (options.return_novelty == 0 || gate == nullptr || experience == 0) return std::nullopt;
    const std::int64_t count =
        std::min(options.return_examples, context.stream.train_size(experience));
    const Batch first = context.stream.train_batch(experience, 0, 0, count, options.train_seed);
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
    context.log("novelty",
                json::object{
                    {"experience", experience}, {"novelty", std::move(all)}, {"returns", returns}});
    if (!returns) return std::nullopt;
    return nearest;
  }

  std::optional<std::int64_t> returned_;  // of the experience that goes on
};

}  // namespace

std::unique_ptr<Strategy> make_strategy(const RunConfig& config) {
  switch (config.train.strategy) {
    case StrategyKind::naive:
      return std::make_unique<Naive>();
    case StrategyKind::joint:
      return std::make_unique<Joint>();
    case StrategyKind::grow_freeze:
      return std::make_unique<GrowFreeze>();
  }
  throw InvalidOptions("unknown strategy");
}

}  // namespace perennial::continual
