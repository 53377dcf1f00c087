// SPDX-License-Identifier: Apache-2.0
// What models and their optimizer offer to commits: what changed, and nothing else.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "continual/run/trainer_testing.h"
#include "model/dense_optimizer.h"
#include "perennial/continual/model.h"
#include "perennial/core/dense_state.h"
#include "perennial/core/error.h"
#include "perennial/storage/memory_store.h"
#include "strategies/strategy_state.h"

namespace perennial::continual {
namespace {

using ::testing::Each;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;

RunConfig small_mlp(const char* strategy, OptimizerKind optimizer) {
  RunConfig config = small_config(kPlain);
  config.model.model = ModelKind::mlp;
  config.model.depth = 1;
  config.train.strategy = strategy;
  config.train.optimizer = optimizer;
  return config;
}

// The names of what a commit to the store was given.
std::vector<std::string> commit(storage::PageStore& store, Participant& part) {
  storage::CommitRequest request;
  part.add_to_commit(request);
  std::vector<std::string> names;
  for (const auto& [name, payload] : request.dense) names.push_back(name);
  (void)value_or_throw(store.commit_async(std::move(request)).get());
  part.committed();
  return names;
}

// A step on the parameters `which` of the model.
void step(Model& model, DenseOptimizer& optimizer, const std::string& which = "") {
  DenseOptimizer::Parameters parameters = model.trainable();
  optimizer.set_parameters(parameters);
  optimizer.zero_grad();
  for (auto& [name, tensor] : parameters) {
    if (name.find(which) != std::string::npos) tensor.mutable_grad() = at::full_like(tensor, 0.1F);
  }
  optimizer.step();
  optimizer.zero_grad();
}

TEST(ModelCommits, AnMlpOffersWhatAStepChanged) {
  for (const OptimizerKind kind : {OptimizerKind::sgd, OptimizerKind::adam}) {
    const RunConfig config = small_mlp("naive", kind);
    const auto store = storage::make_memory_store();
    const std::unique_ptr<Model> model = make_model(config, kFeatures, kClasses, nullptr, 0);
    DenseOptimizer optimizer(config.train);
    EXPECT_THAT(commit(*store, *model), SizeIs(4));
    EXPECT_THAT(commit(*store, *model), IsEmpty());
    step(*model, optimizer, "hidden0");
    EXPECT_THAT(commit(*store, *model),
                UnorderedElementsAre("dense/hidden0/weight", "dense/hidden0/bias"));
    for (const auto& [name, tensor] : model->trainable()) {
      EXPECT_TRUE(at::equal(tensor_from(*store->read_dense(name), name), tensor)) << name;
    }
    EXPECT_THAT(commit(*store, *model), IsEmpty());
    // A commit that failed: what it had comes again.
    step(*model, optimizer, "output");
    storage::CommitRequest lost;
    model->add_to_commit(lost);
    model->commit_failed();
    EXPECT_THAT(commit(*store, *model), SizeIs(2));
  }
}

TEST(ModelCommits, MomentsAreOfferedWhenTheyMoved) {
  const RunConfig config = small_mlp("naive", OptimizerKind::adam);
  const auto store = storage::make_memory_store();
  const std::unique_ptr<Model> model = make_model(config, kFeatures, kClasses, nullptr, 0);
  DenseOptimizer optimizer(config.train);
  step(*model, optimizer);
  EXPECT_THAT(commit(*store, optimizer), SizeIs(12));
  EXPECT_THAT(commit(*store, optimizer), IsEmpty());
  step(*model, optimizer, "output/bias");
  const std::string moments = "optimizer/dense/output/bias/";
  EXPECT_THAT(commit(*store, optimizer),
              UnorderedElementsAre(moments + "m", moments + "v", moments + "step"));
  // From the store nothing but what moves then; of parameters that train no more nothing is left.
  DenseOptimizer loaded(config.train);
  loaded.load(*store);
  auto parameters = model->trainable();
  loaded.set_parameters(parameters);
  EXPECT_THAT(commit(*store, loaded), IsEmpty());
  step(*model, loaded, "output/bias");
  EXPECT_THAT(commit(*store, loaded), SizeIs(3));
  parameters.erase(parameters.begin());
  loaded.set_parameters(parameters);
  EXPECT_THAT(commit(*store, loaded), IsEmpty());
  EXPECT_THAT(store->dense_names(), SizeIs(9));
  loaded.forget();
  EXPECT_THAT(commit(*store, loaded), IsEmpty());
  EXPECT_THAT(store->dense_names(), IsEmpty());
}

TEST(ModelCommits, OnlyTheNewestColumnIsOffered) {
  const RunConfig config = small_mlp("progressive", OptimizerKind::sgd);
  const auto store = storage::make_memory_store();
  const std::unique_ptr<Model> model = make_model(config, kFeatures, kClasses, nullptr, 0);
  DenseOptimizer optimizer(config.train);
  step(*model, optimizer);
  commit(*store, *model);
  model->add_column();
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(commit(*store, *model), Each(StartsWith("dense/column1/")));
    step(*model, optimizer);
  }
  const std::unique_ptr<Model> loaded = load_model(config, kFeatures, kClasses, *store, 0);
  loaded->add_column();
  EXPECT_THAT(commit(*store, *loaded), Each(StartsWith("dense/column2/")));
}

// Two tensors and a number.
class Memory : public Strategy {
 public:
  void visit_state(StateVisitor& visitor) override {
    visitor.tensor("rows", rows);
    visitor.tensor("weights", weights);
    visitor.integer("seen", seen);
  }
  torch::Tensor rows = at::full({3}, 1.0F), weights;
  std::int64_t seen = 0;
};

TEST(ModelCommits, AStrategyOffersWhatChanged) {
  const auto store = storage::make_memory_store();
  const auto memory = std::make_shared<Memory>();
  StrategyState state(memory);
  EXPECT_THAT(commit(*store, state), UnorderedElementsAre("strategy/rows", "strategy/seen"));
  memory->rows[1] = 5;
  memory->weights = at::full({2}, 1.0F);
  EXPECT_THAT(commit(*store, state), UnorderedElementsAre("strategy/rows", "strategy/weights"));
  const auto other = std::make_shared<Memory>();
  StrategyState loaded(other);
  loaded.load(*store, at::kCPU);
  EXPECT_TRUE(at::equal(other->rows, memory->rows));
  other->weights = torch::Tensor();
  other->seen = 1;
  EXPECT_THAT(commit(*store, loaded), UnorderedElementsAre("strategy/seen"));
  EXPECT_THAT(store->dense_names(), UnorderedElementsAre("strategy/rows", "strategy/seen"));
}

}  // namespace
}  // namespace perennial::continual
