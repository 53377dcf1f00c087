// SPDX-License-Identifier: Apache-2.0
// Making strategies, and several as one.
#include "perennial/continual/strategy.h"

#include <algorithm>
#include <ranges>
#include <vector>

#include "strategies/strategies.h"

namespace perennial::continual {

namespace {

// Strategies that work together: hooks before something are called in order (growth first), hooks
// after something in reverse.
class Composition : public Strategy {
 public:
  explicit Composition(std::vector<StrategyPointer> parts) : parts_(std::move(parts)) {}

  Stream training_stream(const Stream& stream) const override {
    return parts_.front()->training_stream(stream);
  }
  void before_experience(StrategyContext& context) override {
    for (auto& part : parts_) part->before_experience(context);
  }
  bool skips_experience() const override {
    return std::ranges::any_of(parts_, [](const auto& part) { return part->skips_experience(); });
  }
  void before_step(StrategyContext& context, TrainingBatch& batch) override {
    for (auto& part : parts_) part->before_step(context, batch);
  }
  torch::Tensor target_loss(StrategyContext& context, const TrainingBatch& batch) override {
    for (auto& part : parts_) {
      if (torch::Tensor loss = part->target_loss(context, batch); loss.defined()) return loss;
    }
    return {};
  }
  torch::Tensor extra_loss(StrategyContext& context, const TrainingBatch& batch) override {
    torch::Tensor sum;
    for (auto& part : parts_) {
      const torch::Tensor extra = part->extra_loss(context, batch);
      if (extra.defined()) sum = sum.defined() ? sum + extra : extra;
    }
    return sum;
  }
  void after_backward(StrategyContext& context, const TrainingBatch& batch) override {
    for (auto& part : std::views::reverse(parts_)) part->after_backward(context, batch);
  }
  bool reads_expert_gradients() const override {
    return std::ranges::any_of(parts_,
                               [](const auto& part) { return part->reads_expert_gradients(); });
  }
  void after_expert_backward(StrategyContext& context, const TrainingBatch& batch,
                             std::vector<CompactGradient>& gradients) override {
    for (auto& part : std::views::reverse(parts_)) {
      if (part->reads_expert_gradients()) part->after_expert_backward(context, batch, gradients);
    }
  }
  void after_step(StrategyContext& context, const TrainingBatch& batch) override {
    for (auto& part : std::views::reverse(parts_)) part->after_step(context, batch);
  }
  void after_experience(StrategyContext& context) override {
    for (auto& part : std::views::reverse(parts_)) part->after_experience(context);
  }
  std::optional<Prediction> predict(Model& model, const torch::Tensor& x,
                                    std::optional<std::uint32_t> experience) override {
    for (auto& part : parts_) {
      if (auto answer = part->predict(model, x, experience)) return answer;
    }
    return {};
  }
  void visit_state(StateVisitor& visitor) override {
    for (auto& part : parts_) part->visit_state(visitor);
  }
  bool extend(const StreamShape& before, const StreamShape& now) override {
    return std::all_of(parts_.begin(), parts_.end(),
                       [&](const StrategyPointer& part) { return part->extend(before, now); });
  }

 private:
  std::vector<StrategyPointer> parts_;
};

// The model, but for what the strategy answers itself.
class AnsweringModel : public Model {
 public:
  AnsweringModel(std::shared_ptr<Model> model, std::shared_ptr<Strategy> strategy)
      : model_(std::move(model)), strategy_(std::move(strategy)) {}

  torch::Tensor train_forward(const torch::Tensor& x) override { return model_->train_forward(x); }
  torch::Tensor test_forward(const torch::Tensor& x) override { return model_->test_forward(x); }
  torch::Tensor traced_forward(const torch::Tensor& x, std::vector<LayerUse>& uses) override {
    return model_->traced_forward(x, uses);
  }
  Prediction predict(const torch::Tensor& x, std::optional<std::uint32_t> generation) override {
    if (auto answer = strategy_->predict(*model_, x, generation)) return *std::move(answer);
    return model_->predict(x, generation);
  }
  std::vector<std::pair<std::string, torch::Tensor>> trainable() override {
    return model_->trainable();
  }
  std::int64_t dense_parameters() const override { return model_->dense_parameters(); }
  bool learns_by_gradient() const override { return model_->learns_by_gradient(); }
  void observe(const torch::Tensor& x, const torch::Tensor& y) override { model_->observe(x, y); }
  std::int64_t newest_generation() override { return model_->newest_generation(); }
  void add_column() override { model_->add_column(); }
  std::int64_t generation_of(std::int64_t experience) const override {
    return model_->generation_of(experience);
  }
  void assign(std::int64_t experience, std::int64_t generation) override {
    model_->assign(experience, generation);
  }
  ExpertLayers* experts() override { return model_->experts(); }
  torch::Tensor layer_inputs(const std::string& layer, const torch::Tensor& x) override {
    return model_->layer_inputs(layer, x);
  }
  torch::Tensor generation_outputs(std::uint32_t generation, const torch::Tensor& x) override {
    return model_->generation_outputs(generation, x);
  }
  GenerationGate* gate() override { return model_->gate(); }
  void add_to_commit(storage::CommitRequest& request) override { model_->add_to_commit(request); }
  void committed() override { model_->committed(); }
  void commit_failed() override { model_->commit_failed(); }

 private:
  std::shared_ptr<Model> model_;
  std::shared_ptr<Strategy> strategy_;
};

}  // namespace

torch::Tensor step_loss(Strategy& strategy, StrategyContext& context, const TrainingBatch& batch) {
  torch::Tensor loss = strategy.target_loss(context, batch);
  if (!loss.defined()) loss = context.stream.task().loss(batch.outputs, batch.y);
  const torch::Tensor extra = strategy.extra_loss(context, batch);
  return extra.defined() ? loss + extra : loss;
}

std::unique_ptr<Strategy> make_strategy(const RunConfig& config, const StreamShape& shape) {
  std::vector<StrategyPointer> parts;
  for (const StrategyDeclaration* part : config.train.strategy.parts()) {
    parts.push_back(part->make(config, shape));
  }
  if (parts.size() == 1) return std::move(parts[0]);
  return std::make_unique<Composition>(std::move(parts));
}

std::unique_ptr<Model> answering_model(std::shared_ptr<Model> model,
                                       std::shared_ptr<Strategy> strategy) {
  return std::make_unique<AnsweringModel>(std::move(model), std::move(strategy));
}

}  // namespace perennial::continual
