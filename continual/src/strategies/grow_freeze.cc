// SPDX-License-Identifier: Apache-2.0
// Grow and freeze: a generation of experts for each experience.
#include "strategies/strategies.h"

namespace perennial::continual {

namespace {

namespace json = boost::json;

// A generation for each experience, frozen after it. Isolated routing learns the gate's statistics
// as the data streams by, of the stream's rows only; shared routing unmasks the new rows, an
// explicit and logged event, when their experience starts.
class GrowFreeze : public Strategy {
 public:
  void before_experience(StrategyContext& context) override {
    PeerImpl& peer = *context.model.peer();
    if (!peer.pool().open_generation()) {
      const Generation& generation = peer.grow();
      if (context.model.gate() != nullptr) context.model.gate()->add_generation();
      context.log("grow", json::object{{"experience", context.experience},
                                       {"generation", generation.index},
                                       {"first_row", generation.first_row},
                                       {"rows", generation.rows},
                                       {"cols", generation.cols}});
    }
    if (peer.has_masked()) {
      peer.unmask();
      context.log("unmask", json::object{{"experience", context.experience}});
    }
  }

  void before_step(StrategyContext& context, TrainingBatch& batch) override {
    if (context.model.gate() != nullptr) {
      context.model.gate()->observe(batch.fresh_x(), context.model.gate()->generations() - 1);
    }
  }

  void after_experience(StrategyContext& context) override {
    PeerImpl& peer = *context.model.peer();
    const std::uint32_t generation = *peer.pool().open_generation();
    const storage::Digest digest = peer.freeze();
    context.log("freeze", json::object{{"experience", context.experience},
                                       {"generation", generation},
                                       {"digest", digest.hex()}});
    if (context.model.gate() != nullptr) context.model.gate()->solve();
  }
};

}  // namespace

StrategyPointer make_grow_freeze() { return std::make_unique<GrowFreeze>(); }

}  // namespace perennial::continual
