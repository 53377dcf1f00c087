// SPDX-License-Identifier: Apache-2.0
// CLS-ER: replay held to a fast and a slow average of the model.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/mse_loss.h>
#include <ATen/ops/where.h>

#include <algorithm>

#include "model/parameter_vector.h"
#include "strategies/replay.h"

namespace perennial::continual {

namespace {

constexpr StrategyOption<double> kClsErWeight{
    "cls_er_weight", 0.1, "cls_er: weight of the replayed outputs' squared error", Range{0, 1e6}};
constexpr StrategyOption<double> kClsErPlasticRate{
    "cls_er_plastic_rate", 0.9, "cls_er: share of steps that update the plastic model",
    Range{0, 1}};
constexpr StrategyOption<double> kClsErPlasticDecay{
    "cls_er_plastic_decay", 0.999, "cls_er: what an update keeps of the plastic model",
    Range{0, 1}};
constexpr StrategyOption<double> kClsErStableRate{
    "cls_er_stable_rate", 0.7, "cls_er: share of steps that update the stable model, which answers",
    Range{0, 1}};
constexpr StrategyOption<double> kClsErStableDecay{
    "cls_er_stable_decay", 0.999, "cls_er: what an update keeps of the stable model", Range{0, 1}};

// A moving average of the model: a step updates it with probability `rate`.
class AveragedModel {
 public:
  AveragedModel(double rate, double decay) : rate_(rate), decay_(decay) {}

  ParameterVector& values() { return values_; }
  void start(const std::vector<torch::Tensor>& parameters) {
    if (!values_.defined()) values_.set_values(parameters);
  }
  // After step `step` of the run, from 1.
  void update(const std::vector<torch::Tensor>& parameters, std::int64_t step, double drawn) {
    if (drawn >= rate_) return;
    const at::NoGradGuard no_grad;
    const double keep = std::min(1 - 1 / static_cast<double>(step + 1), decay_);
    ParameterVector now;
    now.set_values(parameters);
    values_.flat().mul_(keep).add_(now.flat(), 1 - keep);
  }

 private:
  double rate_;
  double decay_;
  ParameterVector values_;
};

// Arani et al. 2022, "Learning Fast, Learning Slow: A General Continual Learning Method based on
// Complementary Learning System" (arXiv 2201.12604), algorithm 1: L = L_task(fresh and replayed
// rows) + lambda mean (h(x') - z)^2 over replayed rows x', z the outputs of the plastic or of the
// stable model, for each row of the one that gives its label the larger probability. Both models
// are averages of the one that trains, theta_a <- a theta_a + (1 - a) theta, of a chance r a step;
// the stable one answers. Defaults: lambda 0.1, r 0.9 and 0.7, a 0.999 and 0.999. Naive, bit for
// bit, at M = 0, but for the answers, which are too where the stable model keeps nothing (r 1, a
// 0). State 2 P; a step costs two forwards of the replayed rows more.
class ClsEr : public Replay {
 public:
  ClsEr(const RunConfig& config, const StreamShape& shape)
      : ClsEr(config.train.strategy_options, config, shape) {}

  void before_experience(StrategyContext& context) override {
    const std::vector<torch::Tensor> parameters = parameters_of(context.model);
    plastic_.start(parameters);
    stable_.start(parameters);
  }

  torch::Tensor extra_loss(StrategyContext& context, const TrainingBatch& batch) override {
    if (replayed().empty() || weight_ == 0) return {};
    const Sample& sample = replayed()[0];
    const torch::Tensor plastic = outputs_with(plastic_.values(), context.model, sample.examples.x);
    const torch::Tensor stable = outputs_with(stable_.values(), context.model, sample.examples.x);
    const torch::Tensor label = sample.examples.y.unsqueeze(1);
    const torch::Tensor surer =
        stable.softmax(1).gather(1, label) > plastic.softmax(1).gather(1, label);
    return weight_ * at::mse_loss(batch.outputs.narrow(0, sample.begin, sample.count()),
                                  at::where(surer, stable, plastic));
  }

  void after_step(StrategyContext& context, const TrainingBatch& batch) override {
    Replay::after_step(context, batch);
    const std::vector<torch::Tensor> parameters = parameters_of(context.model);
    ++steps_;
    plastic_.update(parameters, steps_, updates_.uniform());
    stable_.update(parameters, steps_, updates_.uniform());
  }

  std::optional<Prediction> predict(Model& model, const torch::Tensor& x,
                                    std::optional<std::uint32_t> experience) override {
    if (!stable_.values().defined()) return {};
    const ParameterSwap swap(parameters_of(model), stable_.values());
    return model.predict(x, experience);
  }

  void visit_state(StateVisitor& visitor) override {
    Replay::visit_state(visitor);
    plastic_.values().visit(visitor, "cls_er/plastic");
    stable_.values().visit(visitor, "cls_er/stable");
    updates_.visit(visitor, "cls_er/updates_drawn");
    visitor.integer("cls_er/steps", steps_);
  }

  // The averages have the outputs that there were.
  bool extend(const StreamShape&, const StreamShape&) override { return false; }

 private:
  ClsEr(const StrategyOptions& options, const RunConfig& config, const StreamShape& shape)
      : Replay("cls_er", config, shape, From::all, false, 1),
        weight_(options[kClsErWeight]),
        plastic_(options[kClsErPlasticRate], options[kClsErPlasticDecay]),
        stable_(options[kClsErStableRate], options[kClsErStableDecay]),
        updates_(options[kStrategySeed], LaneUse::replay_draw, 1) {}

  double weight_;
  AveragedModel plastic_, stable_;
  StateRandom updates_;
  std::int64_t steps_ = 0;
};

}  // namespace

const StrategyDeclaration& strategies::cls_er() {
  static const StrategyDeclaration declaration{
      .name = "cls_er",
      .description =
          "replay held to a fast and a slow average of the model, the slow one of which answers",
      .options = Replay::options({&kClsErWeight, &kClsErPlasticRate, &kClsErPlasticDecay,
                                  &kClsErStableRate, &kClsErStableDecay}),
      .needs = {.dense_parameters = "keeps averages of the dense parameters, and experts of a pool "
                                    "would have none",
                .classes = "asks its models for the probability of a label"},
      .differs =
          "an average keeps at most 1 - 1/(steps + 1) of itself, as in the authors' program: "
          "the paper's decay alone would hold it to the initial values for a thousand steps",
      .own_loss = true,
      .all_outputs = true,
      .make = make_one<ClsEr>,
  };
  return declaration;
}

}  // namespace perennial::continual
