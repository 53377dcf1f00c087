// SPDX-License-Identifier: Apache-2.0
// iCaRL: exemplars by herding, and the nearest of their means.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/binary_cross_entropy_with_logits.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/one_hot.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "model/parameter_vector.h"
#include "strategies/herding.h"
#include "strategies/replay_buffer.h"
#include "strategies/shared_options.h"
#include "strategies/strategies.h"

namespace perennial::continual {

namespace {

// Rebuffi et al. 2017, "iCaRL: Incremental Classifier and Representation Learning" (arXiv
// 1611.07725). F features: the last hidden layer's, scaled to length 1.
//  - Training (algorithm 3): on the new examples and the exemplars, by the mean over rows and
//    classes of the binary cross entropy of the logits' sigmoids; the target of a class of earlier
//    experiences is what the model before the experience said, of every other the label. (The paper
//    writes a sum, which is another learning rate.) Each step gets as many exemplars by chance as
//    make one pass over them an epoch.
//  - Exemplars (algorithms 4 and 5): floor(M / classes seen) of each class; new classes choose
//    theirs by herding, older ones keep the first of theirs.
//  - Answers (algorithm 1): the class whose exemplars' mean feature, scaled to length 1, is
//  nearest;
//    the probabilities are the softmax of the negative squared distances. Before the first
//    experience ends, the model's own.
// A class that comes again chooses among its new examples and its exemplars. Default M = 500 (the
// paper: 2000 for CIFAR-100). Exactness: herding is tested against its definition, answers against
// the means.
class Icarl : public Strategy {
 public:
  Icarl(const RunConfig& config, const StreamShape& shape)
      : preprocessing_(shape.preprocessing),
        slots_(config.train.strategy_options[kMemory]),
        held_(static_cast<std::size_t>(shape.classes)),
        seen_(static_cast<std::size_t>(shape.classes)),
        drawing_(config.train.strategy_options[kStrategySeed], LaneUse::replay_draw) {}

  void before_experience(StrategyContext& context) override {
    teacher_.reset();
    if (context.experience > 0) teacher_.set_values(parameters_of(context.model));
  }

  void before_step(StrategyContext& context, TrainingBatch& batch) override {
    const std::int64_t held = total();
    if (held == 0) return;
    const std::int64_t size = context.stream.train_size(context.experience);
    const std::int64_t count = (held * batch.fresh + size - 1) / size;
    const Examples examples = slots_.take(drawing_.sample(held, count), preprocessing_);
    batch.x = at::cat({batch.x, examples.x});
    batch.y = at::cat({batch.y, examples.y});
  }

  torch::Tensor target_loss(StrategyContext& context, const TrainingBatch& batch) override {
    torch::Tensor target = at::one_hot(batch.y, batch.outputs.size(1)).to(at::kFloat);
    if (teacher_.defined()) {
      const torch::Tensor before = outputs_with(teacher_, context.model, batch.x).sigmoid();
      for (std::size_t c = 0; c < seen_.size(); ++c) {
        const auto column = static_cast<std::int64_t>(c);
        if (seen_[c] != 0) target.select(1, column).copy_(before.select(1, column));
      }
    }
    return at::binary_cross_entropy_with_logits(batch.outputs, target);
  }

  void after_step(StrategyContext&, const TrainingBatch&) override { means_ = torch::Tensor(); }

  void after_experience(StrategyContext& context) override {
    const at::NoGradGuard no_grad;
    teacher_.reset();
    choose_exemplars(context);
    means_ = torch::Tensor();
  }

  std::optional<Prediction> predict(Model& model, const torch::Tensor& x,
                                    std::optional<std::uint32_t>) override {
    if (total() == 0) return {};
    const at::NoGradGuard no_grad;
    if (!means_.defined()) find_means(model);
    // |f - m|^2 = 2 - 2 f.m for vectors of length 1; a class without exemplars is never nearest.
    torch::Tensor distance = 2 - 2 * features(model, x).mm(means_.t());
    for (std::size_t c = 0; c < held_.size(); ++c) {
      if (held_[c] == 0) distance.select(1, static_cast<std::int64_t>(c)).fill_(kFar);
    }
    return Prediction{(-distance).softmax(1), at::full({x.size(0)}, -1, at::kLong)};
  }

  void visit_state(StateVisitor& visitor) override {
    slots_.visit(visitor, "icarl");
    teacher_.visit(visitor, "icarl/teacher");
    drawing_.visit(visitor, "icarl/drawn");
    visit_numbers(visitor, "icarl/held", held_);
    visit_numbers(visitor, "icarl/seen", seen_);
    if (total() > slots_.capacity()) {
      throw DataError("dense entry 'strategy/icarl/held' is beyond the memory");
    }
  }

 private:
  // Squared distances of unit vectors are at most 4; e^-100 is no probability to speak of.
  static constexpr double kFar = 100;
  static constexpr std::int64_t kRows = 256;

  static torch::Tensor features(Model& model, const torch::Tensor& x) {
    std::vector<LayerUse> uses;
    model.traced_forward(x, uses);
    const torch::Tensor f = uses.back().input.detach().to(at::kCPU);
    return f / f.norm(2, {1}, true).clamp_min(1e-12);
  }

  std::int64_t total() const {
    std::int64_t sum = 0;
    for (const std::int64_t count : held_) sum += count;
    return sum;
  }
  // Exemplars lie class by class, each class in the order in which herding chose them.
  std::vector<std::int64_t> slots_of(std::size_t label, std::int64_t count) const {
    std::int64_t first = 0;
    for (std::size_t c = 0; c < label; ++c) first += held_[c];
    std::vector<std::int64_t> slots;
    for (std::int64_t i = 0; i < count; ++i) slots.push_back(first + i);
    return slots;
  }

  void find_means(Model& model) {
    std::vector<torch::Tensor> means;
    for (std::size_t c = 0; c < held_.size(); ++c) {
      if (held_[c] == 0) {
        means.push_back(torch::Tensor());
        continue;
      }
      const Examples examples = slots_.take(slots_of(c, held_[c]), preprocessing_);
      const torch::Tensor mean = features(model, examples.x).mean(0);
      means.push_back(mean / mean.norm().clamp_min(1e-12));
    }
    const auto any = std::find_if(means.begin(), means.end(),
                                  [](const torch::Tensor& mean) { return mean.defined(); });
    means_ = at::zeros({static_cast<std::int64_t>(means.size()), any->size(0)});
    for (std::size_t c = 0; c < means.size(); ++c) {
      if (means[c].defined()) means_[static_cast<std::int64_t>(c)].copy_(means[c]);
    }
  }

  // The experience's examples in the order of one pass, which is the same each time.
  template <class Visit>
  static void pass(StrategyContext& context, Visit visit) {
    const std::int64_t steps = context.stream.steps_per_epoch(context.experience, kRows);
    for (std::int64_t step = 0; step < steps; ++step) {
      visit(context.stream.train_batch(context.experience, 0, step, kRows, 0));
    }
  }

  void choose_exemplars(StrategyContext& context) {
    std::vector<torch::Tensor> all_features, all_labels;
    pass(context, [&](const Batch& batch) {
      all_features.push_back(features(context.model, batch.x));
      all_labels.push_back(batch.y);
    });
    const torch::Tensor f = at::cat(all_features), labels = at::cat(all_labels);
    std::vector<std::vector<std::int64_t>> places(held_.size());  // of each class, in the pass
    const std::int64_t* label = labels.const_data_ptr<std::int64_t>();
    for (std::int64_t i = 0; i < labels.numel(); ++i) {
      places[static_cast<std::size_t>(label[i])].push_back(i);
    }
    std::int64_t classes = 0;
    for (std::size_t c = 0; c < held_.size(); ++c) {
      if (!places[c].empty()) seen_[c] = 1;
      classes += seen_[c];
    }
    const std::int64_t quota = slots_.capacity() / classes;
    keep(context, f, places, quota);
  }

  // Fills new slots, class by class.
  void keep(StrategyContext& context, const torch::Tensor& f,
            const std::vector<std::vector<std::int64_t>>& places, std::int64_t quota) {
    struct Wanted {
      std::int64_t slot, place;  // slot to fill with the example at this place of the pass
    };
    ExampleSlots next(slots_.capacity());
    std::vector<Wanted> wanted;
    std::vector<std::int64_t> held(held_.size());
    std::int64_t slot = 0;
    for (std::size_t c = 0; c < held_.size(); ++c) {
      Examples old;
      if (held_[c] > 0) old = slots_.take(slots_of(c, held_[c]), preprocessing_);
      // Candidates: old exemplars first, then what came.
      std::vector<std::int64_t> order;
      if (places[c].empty()) {
        for (std::int64_t i = 0; i < std::min(quota, held_[c]); ++i) order.push_back(i);
      } else {
        torch::Tensor candidates = f.index_select(0, at::tensor(places[c], at::kLong));
        if (held_[c] > 0) candidates = at::cat({features(context.model, old.x), candidates});
        order = herd(candidates, quota);
      }
      std::vector<std::pair<std::int64_t, std::int64_t>> rows;
      for (const std::int64_t candidate : order) {
        if (candidate < held_[c]) {
          rows.emplace_back(slot, candidate);
        } else {
          wanted.push_back({slot, places[c][static_cast<std::size_t>(candidate - held_[c])]});
        }
        ++slot;
      }
      if (!rows.empty()) next.put(rows, old, preprocessing_);
      held[c] = std::ssize(order);
    }
    std::sort(wanted.begin(), wanted.end(),
              [](const Wanted& a, const Wanted& b) { return a.place < b.place; });
    std::size_t at = 0;
    std::int64_t begin = 0;
    pass(context, [&](const Batch& batch) {
      std::vector<std::pair<std::int64_t, std::int64_t>> rows;
      for (; at < wanted.size() && wanted[at].place < begin + batch.y.size(0); ++at) {
        rows.emplace_back(wanted[at].slot, wanted[at].place - begin);
      }
      next.put(rows, {batch.x, batch.y, {}}, preprocessing_);
      begin += batch.y.size(0);
    });
    slots_ = std::move(next);
    held_ = std::move(held);
  }

  Preprocessing preprocessing_;
  ExampleSlots slots_;
  ParameterVector teacher_;         // while an experience after the first is trained
  std::vector<std::int64_t> held_;  // (C) exemplars
  std::vector<std::int64_t> seen_;  // (C) 1 for classes of experiences that have ended
  StateRandom drawing_;
  torch::Tensor means_;  // (C, F); undefined when out of date
};

void refuse_icarl(const RunConfig& config) {
  if (config.stream.resolved_scenario() != Scenario::domain_incremental) return;
  throw InvalidOptions(
      "strategy icarl is for classes that come in turn, and in scenario domain no class is new "
      "after the first experience; use scenario class");
}

}  // namespace

const StrategyDeclaration& strategies::icarl() {
  static const StrategyDeclaration declaration{
      .name = "icarl",
      .description =
          "distils with exemplars chosen by herding, and answers by the nearest mean of their "
          "features",
      .options = {&kMemory, &kStrategySeed},
      .needs = {.dense_parameters = "needs the model as it was before the experience and its last "
                                    "hidden layer, which a pool does not keep or have",
                .classes = "keeps exemplars of each class",
                .boundaries = true},
      .differs =
          "the loss is the mean over rows and classes where the paper writes the sum: a factor "
          "that Adam does not see, and that makes a learning rate independent of batch and classes",
      .own_loss = true,
      .all_outputs = true,
      .refuse = refuse_icarl,
      .make = make_one<Icarl>,
  };
  return declaration;
}

}  // namespace perennial::continual
