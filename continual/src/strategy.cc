// SPDX-License-Identifier: Apache-2.0
// Naive, joint, and grow_freeze.
#include "perennial/continual/strategy.h"

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

// A generation for each experience, frozen after it. Isolated routing learns the gate's statistics
// as the data streams by; shared routing unmasks the new rows, an explicit and logged event, when
// their experience starts.
class GrowFreeze : public Strategy {
 public:
  void before_experience(StrategyContext& context, std::int64_t experience) override {
    PeerImpl& peer = *context.model.peer();
    if (!peer.pool().open_generation()) {
      const Generation& generation = peer.grow();
      if (context.model.gate() != nullptr) context.model.gate()->add_generation();
      context.log("grow", json::object{{"experience", experience},
                                       {"generation", generation.index},
                                       {"first_row", generation.first_row},
                                       {"rows", generation.rows},
                                       {"cols", generation.cols}});
    }
    if (peer.has_masked()) {
      peer.unmask();
      context.log("unmask", json::object{{"experience", experience}});
    }
  }

  void before_step(StrategyContext& context, std::int64_t, const Batch& batch) override {
    if (context.model.gate() != nullptr) {
      context.model.gate()->observe(batch.x, context.model.gate()->generations() - 1);
    }
  }

  void after_experience(StrategyContext& context, std::int64_t experience) override {
    PeerImpl& peer = *context.model.peer();
    const std::uint32_t generation = *peer.pool().open_generation();
    const storage::Digest digest = peer.freeze();
    context.log("freeze", json::object{{"experience", experience},
                                       {"generation", generation},
                                       {"digest", digest.hex()}});
    if (context.model.gate() != nullptr) context.model.gate()->solve();
  }
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
