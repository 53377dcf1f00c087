// SPDX-License-Identifier: Apache-2.0
// Grow and freeze where nobody announces boundaries: a generation for each drift of the stream.
#include <vector>

#include "perennial/continual/drift.h"
#include "strategies/generations.h"
#include "strategies/grow_freeze.h"

namespace perennial::continual {

namespace {

namespace json = boost::json;

// Each batch is judged by its loss under the generation that is learning, before anything learns
// from it. A suspicious batch is held back. If the next ones are too, the distribution has drifted:
// the generation freezes as it was before the first of them, a new one opens (or, with
// return_novelty, an older one that knows these inputs takes over), and learns the held batches in
// its first step. If not, they are learnt late, with the batch that cleared them. So no generation
// has a step of another's distribution to roll back, and no example is lost but those still held
// when the stream ends. A generation that took over is frozen: it learns nothing more, and is
// watched for the next drift.
//
// Experiences only say when to evaluate; for the gate's accuracy one belongs to the generation that
// was current in its middle. State: the detector, that generation and the current one, and where
// the held batches are in the stream.
class GrowOnDrift : public Strategy {
 public:
  explicit GrowOnDrift(const StrategyOptions& options)
      : detector_({options[kDriftThreshold], options[kDriftSteps], options[kDriftWindow]}) {}

  void before_experience(StrategyContext& context) override {
    if (current_ >= 0) return;
    const auto open = context.model.experts()->open_generation();
    current_ = open ? *open : open_generation(context);
  }

  void before_step(StrategyContext& context, TrainingBatch& batch) override {
    judge(context, batch);
    const std::int64_t steps =
        context.stream.steps_per_epoch(context.experience, context.config.train.batch);
    if (context.step == steps / 2) owner_ = current_;
  }

  void after_experience(StrategyContext& context) override {
    context.model.assign(context.experience, owner_);
    if (context.experience + 1 < context.stream.experiences()) return;
    if (!held_.empty()) {
      context.log("drift_undecided", json::object{{"experience", context.experience},
                                                  {"batches", held_.size() / kPlace}});
      held_.clear();
    }
    if (learning(context)) freeze_generation(context);
  }

  void visit_state(StateVisitor& visitor) override {
    DriftDetector::State state = detector_.state();
    visitor.integer("drift_observed", state.observed);
    visitor.integer("drift_suspicious", state.suspicious);
    torch::Tensor moments = at::tensor({state.mean, state.variance}, at::kDouble);
    visitor.tensor("drift_moments", moments);
    state.mean = moments[0].item<double>();
    state.variance = moments[1].item<double>();
    detector_.set_state(state);
    visitor.integer("drift_generation", current_);
    visitor.integer("drift_owner", owner_);
    torch::Tensor held = held_.empty() ? torch::Tensor() : at::tensor(held_, at::kLong);
    visitor.tensor("drift_held", held);
    held_.clear();
    if (held.defined()) {
      const std::int64_t* first = held.const_data_ptr<std::int64_t>();
      held_.assign(first, first + held.numel());
    }
  }

 private:
  static constexpr std::size_t kPlace = 3;  // experience, epoch, step

  void judge(StrategyContext& context, TrainingBatch& batch) {
    const double loss = loss_of(context, batch);
    const DriftDetector::State before = detector_.state();
    const DriftDetector::Verdict verdict = detector_.observe(loss);
    if (verdict == DriftDetector::Verdict::suspicious) {
      held_.insert(held_.end(), {context.experience, context.epoch, context.step});
      batch.train = false;
      return;
    }
    if (!held_.empty()) {
      if (verdict == DriftDetector::Verdict::usual) {
        context.log("drift_cleared", json::object{{"experience", context.experience},
                                                  {"step", context.step},
                                                  {"batches", held_.size() / kPlace}});
      }
      add_held(context, batch);
    }
    if (verdict == DriftDetector::Verdict::drift) turn(context, batch, loss, before);
    if (!learning(context)) {
      batch.train = false;
      return;
    }
    context.model.gate()->observe(batch.x, current_, batch.y);
  }

  bool learning(StrategyContext& context) const {
    return context.model.experts()->open_generation().has_value();
  }

  // The mean loss under the current generation, as it would answer now.
  double loss_of(StrategyContext& context, const TrainingBatch& batch) const {
    const torch::Tensor outputs =
        context.model.generation_outputs(static_cast<std::uint32_t>(current_), batch.x);
    return context.stream.task().loss(outputs, batch.y).item<double>();
  }

  // Puts the held batches before this one.
  void add_held(StrategyContext& context, TrainingBatch& batch) {
    const TrainOptions& options = context.config.train;
    std::vector<torch::Tensor> x, y;
    for (std::size_t i = 0; i < held_.size(); i += kPlace) {
      const Batch held = context.stream.train_batch(held_[i], held_[i + 1], held_[i + 2],
                                                    options.batch, options.train_seed);
      x.push_back(held.x);
      y.push_back(held.y);
    }
    x.push_back(batch.x);
    y.push_back(batch.y);
    batch.x = at::cat(x);
    batch.y = at::cat(y);
    batch.fresh = batch.rows();
    held_.clear();
  }

  // The distribution of `batch` is another than the current generation's.
  void turn(StrategyContext& context, const TrainingBatch& batch, double loss,
            const DriftDetector::State& before) {
    context.log("drift", json::object{{"experience", context.experience},
                                      {"step", context.step},
                                      {"generation", current_},
                                      {"loss", loss},
                                      {"usual_loss", before.mean},
                                      {"usual_variance", before.variance}});
    const std::optional<std::int64_t> known = returned_to(context, batch.x, true);
    if (known == current_) return;  // a false alarm: these are inputs that it knows
    context.settle();
    if (learning(context)) freeze_generation(context);
    if (known) {
      current_ = *known;
    } else {
      current_ = open_generation(context);
    }
    context.regrown = true;
  }

  DriftDetector detector_;
  std::int64_t current_ = -1;       // the generation that the stream is taken to be of
  std::int64_t owner_ = -1;         // what that was in the middle of the experience
  std::vector<std::int64_t> held_;  // places of the batches held back
};

}  // namespace

StrategyPointer make_grow_on_drift(const StrategyOptions& options) {
  return std::make_unique<GrowOnDrift>(options);
}

}  // namespace perennial::continual
