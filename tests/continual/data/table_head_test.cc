// SPDX-License-Identifier: Apache-2.0
// The analytic head over tables, by the recommended command's settings: as good as ridge regression
// on random features, whatever comes first; and what it does with other inputs and older stores.
#include <ATen/ops/equal.h>

#include <algorithm>

#include "continual/run/learner_testing.h"
#include "perennial/continual/evaluate.h"
#include "perennial/continual/metrics.h"
#include "perennial/core/error.h"

namespace perennial::continual {
namespace {

// `--stream single --head analytic --strategy naive`.
RunConfig recommended(const std::string& table, std::int64_t seed) {
  RunConfig config;
  config.stream.stream = StreamKind::single;
  config.stream.dataset = std::string(PERENNIAL_TEST_TABLES) + "/" + table + ".csv.gz";
  config.stream.stream_seed = seed;
  config.model.head = HeadKind::analytic;
  config.model.seed = seed;
  config.train.strategy = "naive";
  return config;
}

double accuracy(const RunConfig& config) {
  return acc(learn(config, Stream(config.stream), nullptr).matrix).value();
}

struct Reference {
  std::string table;
  double ridge, on_random_features;  // tests/continual/tables/README.md
  std::int64_t seeds;
};

TEST(TableHead, IsWithinAPointOfRidgeRegressionAloneAndOnRandomFeatures) {
  for (const auto& [table, ridge, on_random_features, seeds] :
       {Reference{"iris", 0.8213, 0.9547, 50}, Reference{"wine", 0.9894, 0.9839, 50},
        Reference{"breast_cancer", 0.9629, 0.9778, 5}, Reference{"digits", 0.9417, 0.9800, 2}}) {
    double mean = 0;
    for (std::int64_t seed = 1; seed <= seeds; ++seed) {
      mean += accuracy(recommended(table, seed)) / static_cast<double>(seeds);
    }
    EXPECT_GT(mean, std::max(ridge, on_random_features) - 0.01) << table;
  }
}

// Means and deviations are of the first experience: of two digits where most pixels are dark, and
// of pixels that are elsewhere later.
TEST(TableHead, KeepsItsAccuracyWhateverComesFirst) {
  RunConfig config = recommended("digits", 1);
  config.stream.stream = StreamKind::split;
  config.stream.experiences = 5;
  EXPECT_GT(accuracy(config), 0.975 - 0.01);
  config.stream.stream = StreamKind::permuted;
  EXPECT_GT(accuracy(config), 0.944 - 0.01);
}

TEST(TableHead, AnswersForARowWhateverIsAroundIt) {
  const RunConfig config = recommended("wine", 1);
  const auto store = storage::make_memory_store();
  const Stream stream(config.stream);
  learn(config, stream, store.get());
  const auto model = load_learnt(*store, 0).model;
  const torch::Tensor x = stream.test_batch(0, 0, 36).x;
  const torch::Tensor together = model->predict(x, {}).answers;
  for (std::int64_t i = 0; i < 36; i += 7) {
    EXPECT_TRUE(
        at::equal(model->predict(x.slice(0, i, i + 1), {}).answers, together.slice(0, i, i + 1)));
  }
}

RunConfig small_head(HeadInputs inputs) {
  return small_config({"", [&](RunConfig& c) {
                         c.model.head = HeadKind::analytic;
                         c.model.head_inputs = inputs;
                         c.model.head_pool = 20;
                         c.model.head_filters = 0;
                       }});
}

TEST(TableHead, ReadsColumnsOfWhatIsNoImage) {
  RunConfig config = small_head(HeadInputs::automatic);
  config.model.head_filters = ModelOptions{}.head_filters;
  config.model.head_pool = ModelOptions{}.head_pool;
  config.model.head_width = 40;
  // A weight for each class of the constant, the columns and the random functions.
  const std::int64_t columns = kClasses * (1 + kFeatures + 40);
  EXPECT_EQ(make_model(config, kFeatures, kClasses, nullptr, 0)->dense_parameters(), columns);
  config.model.head_filter_size = 2;
  config.model.head_grid = 2;
  EXPECT_NE(make_model(config, kFeatures, kClasses, nullptr, 0, {3, 4})->dense_parameters(),
            columns);
  // More columns than statistics are kept of.
  config = small_head(HeadInputs::columns);
  config.model.head_filters = ModelOptions{}.head_filters;
  config.model.head_pool = ModelOptions{}.head_pool;
  config.model.head_width = 40;
  EXPECT_EQ(make_model(config, 2000, kClasses, nullptr, 0)->dense_parameters(), kClasses * 41);
}

TEST(TableHead, RefusesWhatWouldDoNothing) {
  const auto refused = [](const std::function<void(RunConfig&)>& change, const std::string& part,
                          std::int64_t budget = 0) {
    RunConfig config = recommended("iris", 1);
    change(config);
    config.validate();
    try {
      make_model(config, 4, 3, nullptr, budget);
      ADD_FAILURE() << part << " was accepted";
    } catch (const InvalidOptions& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("head_inputs filters"), std::string::npos);
    }
  };
  refused([](RunConfig& c) { c.model.head_filters = 0; }, "head_filters");
  refused([](RunConfig& c) { c.model.head_filter_size = 3; }, "head_filter_size");
  refused([](RunConfig& c) { c.model.head_grid = 3; }, "head_grid");
  refused([](RunConfig& c) { c.model.head_pool = 8; }, "head_pool");
  refused([](RunConfig& c) { c.model.head_ridge = 0; }, "head_ridge");
  refused([](RunConfig& c) { c.train.amp = Amp::bf16; }, "amp");
  refused([](RunConfig&) {}, "budget_bytes", 1 << 20);
}

// A store says itself what its head reads: one that was written before there was a choice does not
// have it in its configuration.
TEST(TableHead, OpensWhatAnOlderHeadLearntOfInputsThatAreNoImages) {
  const RunConfig filters = small_head(HeadInputs::filters);
  const auto store = storage::make_memory_store();
  const Stream stream = make_stream(filters);
  learn(filters, stream, store.get());
  RunConfig older = filters;
  older.model.head_inputs = HeadInputs::automatic;
  const boost::json::object model = older.to_json().at("model").as_object();
  EXPECT_FALSE(model.contains("head_inputs"));
  EXPECT_FALSE(model.contains("head_width"));
  const torch::Tensor x = stream.test_batch(0, 0, 40).x;
  EXPECT_TRUE(
      at::equal(load_model(older, kFeatures, kClasses, *store, 0)->predict(x, {}).answers,
                load_model(filters, kFeatures, kClasses, *store, 0)->predict(x, {}).answers));
  older.model.head_pool = 7;
  EXPECT_THROW(load_model(older, kFeatures, kClasses, *store, 0), DataError);
}

}  // namespace
}  // namespace perennial::continual
