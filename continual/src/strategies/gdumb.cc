// SPDX-License-Identifier: Apache-2.0
// GDumb: a balanced memory and nothing else.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include "model/dense_optimizer.h"
#include "model/parameter_vector.h"
#include "strategies/replay_buffer.h"
#include "strategies/shared_options.h"
#include "strategies/strategies.h"

namespace perennial::continual {

namespace {

constexpr StrategyOption<std::int64_t> kGdumbEpochs{
    "gdumb_epochs", 50, "gdumb: passes over the memory", Range{1, 100000}};

// Prabhu et al. 2020, "GDumb: A Simple Approach that Questions Our Progress in Continual Learning"
// (ECCV): the stream only fills a memory that is as balanced over classes as greed makes it
// (algorithm 1); after each experience the model starts anew from its initial values and trains on
// the memory alone (algorithm 2). Defaults: M = 500, 50 passes with the run's optimizer, learning
// rate and batch (the paper: 256 passes of SGD with warm restarts and cut-mix, batch 16).
// Exactness: the model after an experience is a new one that was trained on the memory's examples,
// bit for bit, and it does not change within an experience.
class Gdumb : public Strategy {
 public:
  Gdumb(const RunConfig& config, const StreamShape& shape)
      : memory_(BufferKind::greedy, config.train.strategy_options[kMemory], shape.classes,
                config.train.strategy_options[kStrategySeed]) {}

  void before_step(StrategyContext& context, TrainingBatch& batch) override {
    batch.train = false;
    if (context.epoch > 0) return;
    memory_.add({batch.fresh_x(), batch.fresh_y(), {}}, context.stream.preprocessing());
  }

  void after_experience(StrategyContext& context) override {
    const RunConfig& config = context.config;
    Model& model = context.model;
    start_anew(context);
    const Examples examples = memory_.all(context.stream.preprocessing());
    DenseOptimizer optimizer(config.train);
    optimizer.set_parameters(model.trainable());
    const std::int64_t size = memory_.size(), batch = config.train.batch;
    for (std::int64_t epoch = 0; epoch < config.train.strategy_options[kGdumbEpochs]; ++epoch) {
      std::vector<std::uint32_t> order(static_cast<std::size_t>(size));
      kernels::shuffled_indices(
          static_cast<std::uint64_t>(config.train.strategy_options[kStrategySeed]),
          random_lane(LaneUse::memory_order, context.experience, epoch), order);
      const torch::Tensor rows =
          at::tensor(std::vector<std::int64_t>(order.begin(), order.end()), at::kLong);
      for (std::int64_t begin = 0; begin < size; begin += batch) {
        const torch::Tensor some = rows.narrow(0, begin, std::min(batch, size - begin));
        optimizer.zero_grad();
        const torch::Tensor y = examples.y.index_select(0, some);
        const torch::Tensor outputs = model.train_forward(examples.x.index_select(0, some));
        context.stream.task().loss(outputs, y).backward();
        optimizer.step();
      }
    }
    context.log("gdumb", {{"experience", context.experience}, {"examples", size}});
  }

  void visit_state(StateVisitor& visitor) override { memory_.visit(visitor, "gdumb"); }

 private:
  static void start_anew(StrategyContext& context) {
    const at::NoGradGuard no_grad;
    const auto fresh =
        make_model(context.config, context.stream.features(), context.stream.task().outputs(),
                   nullptr, 0, {context.stream.image_rows(), context.stream.image_cols()});
    const std::vector<torch::Tensor> from = parameters_of(*fresh),
                                     to = parameters_of(context.model);
    for (std::size_t i = 0; i < to.size(); ++i) to[i].copy_(from[i]);
  }

  ReplayBuffer memory_;
};

void refuse_gdumb(const RunConfig& config) {
  if (config.train.strategy_options[kMemory] == 0) {
    throw InvalidOptions("memory is 0; strategy gdumb learns from nothing else");
  }
  if (config.train.lr_schedule != LrSchedule::constant) {
    throw InvalidOptions("strategy gdumb needs lr_schedule constant, not " +
                         std::string(enum_name(config.train.lr_schedule)) +
                         ": it trains after an experience, not within");
  }
}

}  // namespace

const StrategyDeclaration& strategies::gdumb() {
  static const StrategyDeclaration declaration{
      .name = "gdumb",
      .description =
          "keeps a balanced memory, and after each experience trains a new model on it alone",
      .options = {&kMemory, &kGdumbEpochs, &kStrategySeed},
      .needs = {.dense_parameters =
                    "starts the model anew after each experience, and a pool keeps its experts",
                .classes = "balances its memory over classes",
                .boundaries = true},
      .differs =
          "trains with the run's optimizer, rate and batch, without cut-mix and warm restarts, so "
          "that rows of a table differ in the method alone",
      .trains_after = true,
      .refuse = refuse_gdumb,
      .make = make_one<Gdumb>,
  };
  return declaration;
}

}  // namespace perennial::continual
