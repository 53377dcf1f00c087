// SPDX-License-Identifier: Apache-2.0
// Learning without forgetting.
#include <ATen/ops/tensor.h>

#include "model/parameter_vector.h"
#include "strategies/replay_buffer.h"
#include "strategies/strategies.h"

namespace perennial::continual {

namespace {

constexpr StrategyOption<double> kLwfStrength{
    "lwf_strength", 1, "lwf: weight of the distillation loss", Range{0, 1e6}};
constexpr StrategyOption<double> kLwfTemperature{
    "lwf_temperature", 2, "lwf: temperature of the distillation", Range{0.01, 1e3}};

// Li & Hoiem 2016, "Learning without Forgetting" (arXiv 1606.09282), eq. 2 and 3: L = L_task +
// alpha T^2 KL(q || p) over the fresh rows, with q and p the softmax at temperature T of the
// outputs, of the model before the experience and now, over the classes of earlier experiences. T^2
// keeps the gradients' scale (Hinton et al. 2015). Where tasks are known (scenario task) each has
// outputs of its own: the sum over earlier experiences of the divergence over the classes of each.
// Defaults: alpha 1, T 2 (the paper's). Nothing before the second experience. Naive, bit for bit,
// at alpha = 0.
//
// The model before the experience is a copy of its P parameters; or, with isolated generations, the
// generation before the open one, which is frozen.
class LearningWithoutForgetting : public Strategy {
 public:
  LearningWithoutForgetting(const RunConfig& config, const StreamShape& shape)
      : strength_(config.train.strategy_options[kLwfStrength]),
        temperature_(config.train.strategy_options[kLwfTemperature]),
        known_(static_cast<std::size_t>(shape.classes)),
        seen_(static_cast<std::size_t>(shape.classes)) {}

  void before_experience(StrategyContext& context) override {
    known_ = seen_;
    if (strength_ == 0 || context.experience == 0 || context.model.experts() != nullptr) return;
    teacher_.set_values(parameters_of(context.model));
  }

  void before_step(StrategyContext&, TrainingBatch& batch) override {
    if (seen_.empty()) return;
    const torch::Tensor y = batch.fresh_y().contiguous();
    const std::int64_t* label = y.const_data_ptr<std::int64_t>();
    for (std::int64_t i = 0; i < y.numel(); ++i) seen_[static_cast<std::size_t>(label[i])] = 1;
  }

  torch::Tensor extra_loss(StrategyContext& context, const TrainingBatch& batch) override {
    if (strength_ == 0) return {};
    const torch::Tensor before = teacher_outputs(context, batch);
    if (!before.defined()) return {};
    if (known_.empty()) {  // no classes: all outputs are known
      return strength_ * temperature_ * temperature_ *
             context.stream.task().divergence(before, batch.fresh_outputs(), temperature_);
    }
    if (!context.stream.tasks_known()) {
      std::vector<std::int64_t> classes;
      for (std::size_t c = 0; c < known_.size(); ++c) {
        if (known_[c] != 0) classes.push_back(static_cast<std::int64_t>(c));
      }
      return distilled(context, before, batch.fresh_outputs(), classes);
    }
    torch::Tensor sum;
    for (std::int64_t e = 0; e < context.experience; ++e) {
      const torch::Tensor one =
          distilled(context, before, batch.fresh_outputs(), context.stream.classes_of(e));
      sum = sum.defined() ? sum + one : one;
    }
    return sum;
  }

  void visit_state(StateVisitor& visitor) override {
    teacher_.visit(visitor, "lwf/teacher");
    visit_numbers(visitor, "lwf/known", known_);
    visit_numbers(visitor, "lwf/seen", seen_);
  }

 private:
  // alpha T^2 KL over some classes.
  torch::Tensor distilled(const StrategyContext& context, const torch::Tensor& before,
                          const torch::Tensor& now,
                          const std::vector<std::int64_t>& classes) const {
    const torch::Tensor old = at::tensor(classes, at::kLong);
    return strength_ * temperature_ * temperature_ *
           context.stream.task().divergence(before.index_select(1, old), now.index_select(1, old),
                                            temperature_);
  }

  torch::Tensor teacher_outputs(StrategyContext& context, const TrainingBatch& batch) {
    if (context.model.experts() != nullptr) {
      const std::uint32_t open = *context.model.experts()->open_generation();
      if (open == 0) return {};
      return context.model.generation_outputs(open - 1, batch.fresh_x());
    }
    if (!teacher_.defined()) return {};
    return outputs_with(teacher_, context.model, batch.fresh_x());
  }

  double strength_;
  double temperature_;
  ParameterVector teacher_;
  std::vector<std::int64_t> known_;  // (C) 1 for classes of earlier experiences
  std::vector<std::int64_t> seen_;   // (C) with those of this one
};

void refuse_lwf(const RunConfig& config) {
  if (config.model.model != ModelKind::peer) return;
  if (config.train.strategy.has("grow_freeze") && config.model.peer.routing == Routing::isolated) {
    return;
  }
  throw InvalidOptions(
      "strategy lwf needs the model as it was before the experience, and a pool that trains on "
      "keeps none: use grow_freeze+lwf with isolated routing, whose frozen generation it is, or "
      "model mlp");
}

std::vector<UnreadOptions> unread_of_lwf(const RunConfig& config) {
  if (config.task() != TaskKind::regression) return {};
  return {{{"lwf_temperature"}, "--task classification; squared differences have no temperature"}};
}

}  // namespace

const StrategyDeclaration& strategies::lwf() {
  static const StrategyDeclaration declaration{
      .name = "lwf",
      .sort = StrategySort::distillation,
      .description =
          "learning without forgetting: distils the model before the experience on its new data",
      .options = {&kLwfStrength, &kLwfTemperature},
      .needs = {.boundaries = true},
      .own_loss = true,
      .refuse = refuse_lwf,
      .unread = unread_of_lwf,
      .make = make_one<LearningWithoutForgetting>,
  };
  return declaration;
}

}  // namespace perennial::continual
