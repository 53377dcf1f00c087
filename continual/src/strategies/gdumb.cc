// SPDX-License-Identifier: Apache-2.0
// GDumb: a balanced memory and nothing else.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include "model/dense_optimizer.h"
#include "model/parameter_vector.h"
#include "strategies/replay_buffer.h"
#include "strategies/strategies.h"

namespace perennial::continual {

namespace {

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
      : memory_(BufferKind::greedy, config.train.strategy_options.memory, shape.classes,
                config.train.strategy_options.strategy_seed) {}

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
    for (std::int64_t epoch = 0; epoch < config.train.strategy_options.gdumb_epochs; ++epoch) {
      std::vector<std::uint32_t> order(static_cast<std::size_t>(size));
      kernels::shuffled_indices(
          static_cast<std::uint64_t>(config.train.strategy_options.strategy_seed),
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
        make_model(context.config, context.stream.features(), context.stream.classes(), nullptr, 0,
                   {context.stream.image_rows(), context.stream.image_cols()});
    const std::vector<torch::Tensor> from = parameters_of(*fresh),
                                     to = parameters_of(context.model);
    for (std::size_t i = 0; i < to.size(); ++i) to[i].copy_(from[i]);
  }

  ReplayBuffer memory_;
};

}  // namespace

StrategyPointer make_gdumb(const RunConfig& config, const StreamShape& shape) {
  return std::make_unique<Gdumb>(config, shape);
}

}  // namespace perennial::continual
