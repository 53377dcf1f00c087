// SPDX-License-Identifier: Apache-2.0
// PackNet: each experience gets weights of its own within one network.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "model/dense_optimizer.h"
#include "model/parameter_vector.h"
#include "strategies/strategies.h"

namespace perennial::continual {

namespace {

constexpr StrategyOption<double> kPacknetPrune{
    "packnet_prune", 0.75,
    "packnet: share of an experience's weights that is pruned and left to later ones",
    Range{0, 0.999}};
constexpr StrategyOption<std::int64_t> kPacknetRetrain{
    "packnet_retrain", 0,
    "packnet: passes that retrain what was kept; 0 = half of epochs, rounded up", Range{0, 100000}};

// Owners are bytes, 0 = nobody's.
constexpr std::int64_t kMostExperiences = 254;

// Mallya & Lazebnik 2018, "PackNet: Adding Multiple Tasks to a Single Network by Iterative Pruning"
// (arXiv 1711.05769), sections 3 and 4:
//  1. An experience trains all weights that no earlier one owns, beside those owned, which are
//     fixed but used.
//  2. Of the weights that it trained, layer by layer, the share `packnet_prune` of smallest
//     magnitude becomes 0 and nobody's; the rest is the experience's.
//  3. What it owns trains on for `packnet_retrain` passes with its own optimizer, then is fixed.
// Answers for experience e use the weights owned by experiences up to e, so e must be known at
// test. Biases belong to the first experience. The output layer is each experience's own: it starts
// from initial values and is kept whole. Each training has an optimizer of its own. Defaults: 0.75
// pruned (the paper: 0.5 and 0.75, by how much is to follow), as many passes of retraining as half
// of the training (the paper's 10 of 20). With nothing pruned the first experience owns all, and
// later ones train their output layers only.
//
// Exactness: the answers for an experience do not change by one bit once it has ended; owners and
// what was pruned are checked against their definition.
//
// State: an owner and a value each weight, and the output layers: 5 P bytes + 4 a parameter of the
// output layer and experience.
class PackNet : public Strategy {
 public:
  PackNet(const RunConfig& config, const StreamShape& shape)
      : task_(config.task()),
        prune_(config.train.strategy_options[kPacknetPrune]),
        retrain_(config.train.strategy_options[kPacknetRetrain] > 0
                     ? config.train.strategy_options[kPacknetRetrain]
                     : (config.train.epochs + 1) / 2) {
    if (shape.experiences > kMostExperiences) {
      throw InvalidOptions("strategy packnet keeps owners of weights for up to " +
                           std::to_string(kMostExperiences) + " experiences; the stream has " +
                           std::to_string(shape.experiences));
    }
  }

  void before_experience(StrategyContext& context) override {
    if (context.experience == 0) return;
    // A new output layer.
    const at::NoGradGuard no_grad;
    const auto fresh =
        make_model(context.config, context.stream.features(), context.stream.task().outputs(),
                   nullptr, 0, {context.stream.image_rows(), context.stream.image_cols()});
    const Parts from = parts_of(*fresh), to = parts_of(context.model);
    for (std::size_t i = 0; i < to.head.size(); ++i) to.head[i].detach().copy_(from.head[i]);
  }

  void after_step(StrategyContext& context, const TrainingBatch&) override {
    if (!owners_.defined()) return;  // the first experience: all is free
    if (!fixed_.defined()) fixed_ = owners_.ne(0);
    restore(parts_of(context.model).body);
  }

  void after_experience(StrategyContext& context) override {
    Parts parts = parts_of(context.model);
    const std::int64_t kept = prune(parts.body, context.experience);
    fixed_ = owners_.ne(context.experience + 1);
    values_.set_values(parts.body);
    retrain(context, parts);
    values_.set_values(parts.body);
    fixed_.reset();
    ParameterVector head;
    head.set_values(parts.head);
    const torch::Tensor row = head.flat().unsqueeze(0);
    heads_ = heads_.defined() ? at::cat({heads_, row}) : row.clone();
    context.forget_moments = true;
    context.log("pack", {{"experience", context.experience},
                         {"weights_kept", kept},
                         {"weights_free", owners_.eq(0).sum().item<std::int64_t>()}});
  }

  std::optional<Prediction> predict(Model& model, const torch::Tensor& x,
                                    std::optional<std::uint32_t> experience) override {
    const std::int64_t learnt = heads_.defined() ? heads_.size(0) : 0;
    if (!experience || std::cmp_greater_equal(*experience, learnt)) return {};
    const at::NoGradGuard no_grad;
    const std::int64_t e = *experience;
    const torch::Tensor others = owners_.eq(0).logical_or_(owners_.gt(e + 1));
    ParameterVector all;
    all.flat() = at::cat({values_.flat().masked_fill(others, 0), heads_[e]});
    return Prediction{answers_of(task_, outputs_with(all, model, x)),
                      at::full({x.size(0)}, e, at::kLong)};
  }

  void visit_state(StateVisitor& visitor) override {
    visitor.beside_parameters("packnet/owners", owners_);
    values_.visit(visitor, "packnet/values");
    visitor.beside_parameters("packnet/heads", heads_);
    if (owners_.defined() != values_.defined() || owners_.defined() != heads_.defined() ||
        (owners_.defined() && (owners_.scalar_type() != at::kByte || heads_.dim() != 2 ||
                               owners_.numel() != values_.flat().numel()))) {
      throw DataError("the store's state of strategy packnet is malformed");
    }
    fixed_.reset();
  }

 private:
  struct Parts {
    std::vector<torch::Tensor> body;  // weight, bias, weight, bias, ...
    std::vector<torch::Tensor> head;  // the output layer's
  };
  static Parts parts_of(Model& model) {
    Parts parts;
    parts.body = parameters_of(model);
    parts.head.assign(parts.body.end() - 2, parts.body.end());
    parts.body.resize(parts.body.size() - 2);
    return parts;
  }

  // Puts what is fixed back to its value.
  void restore(const std::vector<torch::Tensor>& body) {
    const at::NoGradGuard no_grad;
    const std::vector<torch::Tensor>& values = values_.views(body);
    std::int64_t begin = 0;
    for (std::size_t i = 0; i < body.size(); ++i) {
      const torch::Tensor fixed = fixed_.narrow(0, begin, body[i].numel()).view(body[i].sizes());
      body[i].detach().copy_(at::where(fixed, values[i], body[i]));
      begin += body[i].numel();
    }
  }

  // Gives the experience its weights and sets those pruned to 0; returns how many it got.
  std::int64_t prune(const std::vector<torch::Tensor>& body, std::int64_t experience) {
    const at::NoGradGuard no_grad;
    std::int64_t kept = 0;
    std::vector<torch::Tensor> owners;
    std::int64_t begin = 0;
    for (std::size_t i = 0; i < body.size(); ++i) {
      const std::int64_t size = body[i].numel();
      torch::Tensor own = owners_.defined() ? owners_.narrow(0, begin, size).clone()
                                            : at::zeros({size}, body[i].options().dtype(at::kByte));
      begin += size;
      if (i % 2 == 1) {
        own.fill_(1);
      } else {
        torch::Tensor weights = body[i].detach().view({-1});
        const torch::Tensor free = own.eq(0).nonzero().squeeze(1);
        const auto keep =
            free.numel() -
            static_cast<std::int64_t>(std::floor(prune_ * static_cast<double>(free.numel())));
        // Largest first, ties in order of place.
        const torch::Tensor order = std::get<1>(
            weights.index_select(0, free).abs_().sort(/*stable=*/true, 0, /*descending=*/true));
        const torch::Tensor ranked = free.index_select(0, order);
        own.index_fill_(0, ranked.narrow(0, 0, keep), experience + 1);
        weights.index_fill_(0, ranked.narrow(0, keep, ranked.numel() - keep), 0);
        kept += keep;
      }
      owners.push_back(std::move(own));
    }
    owners_ = at::cat(owners);
    return kept;
  }

  void retrain(StrategyContext& context, const Parts& parts) {
    const TrainOptions& options = context.config.train;
    const std::int64_t steps = context.stream.steps_per_epoch(context.experience, options.batch);
    DenseOptimizer optimizer(options);
    optimizer.set_parameters(context.model.trainable());
    for (std::int64_t step = 0; step < retrain_ * steps; ++step) {
      // The passes that would come next.
      const Batch batch =
          context.stream.train_batch(context.experience, options.epochs + step / steps,
                                     step % steps, options.batch, options.train_seed);
      optimizer.zero_grad();
      context.stream.task().loss(context.model.train_forward(batch.x), batch.y).backward();
      optimizer.scale_lr(lr_factor(options.lr_schedule, step, retrain_ * steps));
      optimizer.step();
      restore(parts.body);
    }
  }

  TaskKind task_;
  double prune_;
  std::int64_t retrain_;
  torch::Tensor owners_;    // (P) uint8 of the body: 0, or 1 + experience; undefined at first
  ParameterVector values_;  // (P) of the body when the last experience ended
  torch::Tensor heads_;     // (experiences learnt, parameters of the output layer)
  torch::Tensor fixed_;     // (P) bool: what does not train now; undefined when out of date
};

void refuse_packnet(const RunConfig& config) {
  if (config.model.depth > 0) return;
  throw InvalidOptions(
      "depth is 0; strategy packnet divides the weights of hidden layers among experiences, and an "
      "mlp of depth 0 has none");
}

}  // namespace

const StrategyDeclaration& strategies::packnet() {
  static const StrategyDeclaration declaration{
      .name = "packnet",
      .description = "gives each experience weights of its own by pruning the rest",
      .options = {&kPacknetPrune, &kPacknetRetrain},
      .needs = {.dense_parameters = "divides the layers of a dense network among experiences",
                .oracle =
                    "answers with the weights of an input's experience, and must be told which",
                .boundaries = true},
      .trains_after = true,
      .refuse = refuse_packnet,
      .make = make_one<PackNet>,
  };
  return declaration;
}

}  // namespace perennial::continual
