// SPDX-License-Identifier: Apache-2.0
// Grow and freeze: a generation of experts for each experience.
#include "strategies/grow_freeze.h"

#include <algorithm>
#include <optional>

#include "strategies/generations.h"
#include "strategies/growth_size.h"

namespace perennial::continual {

namespace {

// A generation for each experience, frozen after it; none for one that returns, where asked for.
// Isolated routing learns the gate as the data streams by, of the stream's rows only;
// shared routing unmasks the new rows, an explicit and logged event, when their experience starts.
//
// With output_regularisation lambda > 0, shared routing only: Chen et al. 2023, "Lifelong Language
// Pretraining with Distribution-Specialized Experts" (arXiv 2305.12281), where growth is held to
// what the layer was by distilling its earlier outputs on the new data: L = L_ce + lambda mean_x
// KL(p_before(x) || p(x)) over fresh rows x, p_before the layer as it was when the experience began
// (its experts are frozen; its shared router is kept as a copy). Default 0: growth alone, bit for
// bit. Nothing before the second experience.
class GrowFreeze : public Strategy {
 public:
  explicit GrowFreeze(const StrategyOptions& options)
      : strength_(options[kOutputRegularisation]), size_(options) {}

  void before_experience(StrategyContext& context) override {
    if (!context.model.learns_by_gradient()) return;  // its pool is frozen from the start
    ExpertLayers& experts = *context.model.experts();
    returned_ = returned(context);
    if (returned_) {
      context.model.assign(context.experience, *returned_);
      return;
    }
    size_.begin();
    if (!experts.open_generation()) {
      if (strength_ > 0) before_ = context.model.only_layer()->frozen_routing();
      context.model.assign(context.experience, open_generation(context));
    }
    if (experts.has_masked()) {
      experts.unmask();
      context.log("unmask", boost::json::object{{"experience", context.experience}});
    }
  }

  bool skips_experience() const override { return returned_.has_value(); }

  void before_step(StrategyContext& context, TrainingBatch& batch) override {
    size_.before_step(context);
    if (GenerationGate* gate = context.model.gate()) {
      gate->observe(batch.fresh_x(), gate->generations() - 1, batch.fresh_y());
    }
  }

  torch::Tensor extra_loss(StrategyContext& context, const TrainingBatch& batch) override {
    if (!before_.defined()) return {};
    PeerImpl& layer = *context.model.only_layer();
    const torch::Tensor before =
        layer.forward_as(before_, context.model.layer_inputs(layer.name(), batch.fresh_x()))
            .to(at::kCPU);
    return strength_ * context.stream.task().divergence(before, batch.fresh_outputs());
  }

  void after_step(StrategyContext& context, const TrainingBatch& batch) override {
    size_.after_step(context, batch);
  }

  void visit_state(StateVisitor& visitor) override {
    visitor.tensor("grow_freeze/routing_before", before_);
    size_.visit_state(visitor);
  }

  void after_experience(StrategyContext& context) override {
    before_.reset();
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

  double strength_;
  GrowthByNeed size_;
  torch::Tensor before_;                  // the router before the experience that goes on
  std::optional<std::int64_t> returned_;  // of the experience that goes on
};

std::int64_t first_columns(const StrategyOptions& options) {
  return options[kGrowthSize] == GrowthSize::need ? options[kGrowthStart] : 0;
}

std::vector<UnreadOptions> unread_of_growth(const RunConfig& config) {
  const StrategyOptions& options = config.train.strategy_options;
  std::vector<UnreadOptions> unread;
  if (options[kGrowth] != GrowthKind::drift) {
    unread.push_back({{"drift_threshold", "drift_steps", "drift_window"}, "--growth drift"});
  } else {
    unread.push_back(
        {{"return_examples"}, "--growth experience; a drift is judged by the batches held back"});
  }
  if (options[kGrowthSize] == GrowthSize::full) {
    unread.push_back({{"growth_start", "growth_loss", "growth_window"}, "--growth-size need"});
  }
  return unread;
}

}  // namespace

const StrategyDeclaration& strategies::grow_freeze() {
  static const StrategyDeclaration declaration{
      .name = "grow_freeze",
      .sort = StrategySort::growth,
      .description = "grows the pool by a generation for each experience and freezes it afterwards",
      .options = {&kOutputRegularisation, &kGrowth, &kGrowthSize, &kGrowthStart, &kGrowthLoss,
                  &kGrowthWindow, &kDriftThreshold, &kDriftSteps, &kDriftWindow},
      .needs = {.pool = "grows a pool of experts", .boundaries = true},
      .without_training = true,
      .first_columns = first_columns,
      .refuse = refuse_growth,
      .unread = unread_of_growth,
      .make = [](const RunConfig& config, const StreamShape&) -> StrategyPointer {
        const StrategyOptions& options = config.train.strategy_options;
        if (options[kGrowth] == GrowthKind::drift) return make_grow_on_drift(options);
        return std::make_unique<GrowFreeze>(options);
      },
  };
  return declaration;
}

}  // namespace perennial::continual
