// SPDX-License-Identifier: Apache-2.0
// Whole runs over tables and over streams whose tasks are known: what a store keeps of them.
#include <ATen/ops/equal.h>

#include "continual/run/trainer_testing.h"
#include "perennial/continual/evaluate.h"
#include "perennial/core/error.h"
#include "perennial/storage/memory_store.h"

namespace perennial::continual {
namespace {

// Columns of very different size; the small one decides.
Dataset make_table(std::int64_t n, std::uint64_t seed) {
  Dataset data;
  data.table = true;
  data.columns = {"income", "share"};
  data.x = torch::empty({n, 2});
  data.y = torch::empty({n}, torch::kLong);
  kernels::RandomStream random(seed);
  float* x = data.x.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < n; ++i) {
    x[2 * i] = static_cast<float>(random.below(1000000));
    x[2 * i + 1] = static_cast<float>(random.below(1000)) / 1000000 + (i % 2 == 0 ? 0 : 0.0012F);
    data.y[i] = i % 2;
  }
  data.label_names = {"low", "high"};
  return data;
}

const Case kMlp{"mlp", [](RunConfig& config) {
                  config.train.strategy = "naive";
                  config.model.model = ModelKind::mlp;
                  config.train.epochs = 4;
                }};

TEST(TableRun, KeepsMeansAndColumnsOfTheFeaturesAndResumesToTheBit) {
  RunConfig config = small_config(kMlp);
  config.stream.stream = StreamKind::single;
  config.stream.experiences = 1;
  const Stream stream(config.stream, TrainTest{make_table(200, 3), make_table(80, 4), "table"});
  ASSERT_EQ(stream.preprocessing().means.size(), 2U);
  const auto whole_store = storage::make_memory_store(), store = storage::make_memory_store();
  const RunResult whole = Trainer(config, stream, whole_store.get(), {}).run();
  EXPECT_GT(whole.matrix.at(1, 0), 0.9);

  RunSettings stopping;
  int steps = 0;
  stopping.stop_requested = [&] { return ++steps == 7; };
  EXPECT_FALSE(Trainer(config, stream, store.get(), stopping).run().finished);
  const RunResult resumed = Trainer(config, stream, store.get(), {}).run();
  EXPECT_EQ(resumed.state_digest, whole.state_digest);

  const LearntModel learnt = load_learnt(*store, 0);
  EXPECT_EQ(learnt.preprocessing.means, stream.preprocessing().means);
  EXPECT_EQ(learnt.preprocessing.deviations, stream.preprocessing().deviations);
  EXPECT_EQ(learnt.preprocessing.columns, (std::vector<std::string>{"income", "share"}));
  EXPECT_TRUE(
      at::equal(learnt.preprocessing.apply(make_table(80, 4).x), stream.test_batch(0, 0, 80).x));
}

TEST(TableRun, LearnsFromTimeStampsInMilliseconds) {
  // A millisecond among 40 in 1.7e12: of 32-bit numbers there would be one for all of them.
  Dataset stamps;
  stamps.table = true;
  stamps.x = torch::empty({200, 1}, torch::kDouble);
  stamps.y = torch::empty({200}, torch::kLong);
  for (std::int64_t i = 0; i < 200; ++i) {
    stamps.x[i][0] = 1.7e12 + static_cast<double>(i * 7 % 40);
    stamps.y[i] = i * 7 % 40 < 20 ? 0 : 1;
  }
  stamps.label_names = {"before", "after"};
  RunConfig config = small_config(kMlp);
  config.stream.stream = StreamKind::single;
  config.stream.experiences = 1;
  const Stream stream(config.stream, TrainTest{stamps, stamps, "stamps"});
  const auto store = storage::make_memory_store();
  EXPECT_GT(Trainer(config, stream, store.get(), {}).run().matrix.at(1, 0), 0.9);
  // The test rows come back from the store as they were, also behind those of an older store.
  Dataset old = stamps;
  old.x = stamps.x.to(torch::kFloat);
  const LearntModel learnt = load_learnt(*store, 0);
  const Stream after(config.stream, TrainTest{stamps, stamps, "stamps"},
                     {stamps.label_names, learnt.preprocessing, {old, stream.test_rows(0)}});
  EXPECT_TRUE(at::equal(after.test_batch(2, 0, 200).x, stream.test_batch(0, 0, 200).x));
  EXPECT_TRUE(at::equal(after.test_batch(1, 0, 200).x, stream.test_batch(0, 0, 200).x));
  EXPECT_TRUE(at::equal(after.test_batch(0, 0, 200).x, learnt.preprocessing.apply(old.x)));
}

TEST(TaskRun, KnownTasksLeaveFewerAnswers) {
  RunConfig config = small_config(kMlp);
  config.stream.stream = StreamKind::split;
  config.stream.experiences = 2;
  const RunResult unknown = run(config, nullptr);
  config.stream.scenario = Scenario::task_incremental;
  const auto store = storage::make_memory_store();
  const RunResult known = run(config, store.get());
  // The same untrained model: fewer answers to choose from make no right one wrong.
  for (std::int64_t j = 0; j < 2; ++j) EXPECT_GE(known.matrix.at(0, j), unknown.matrix.at(0, j));
  EXPECT_GT(known.matrix.at(0, 0) + known.matrix.at(0, 1),
            unknown.matrix.at(0, 0) + unknown.matrix.at(0, 1));
  EXPECT_GT(known.matrix.at(2, 0), 0.8);
  EXPECT_GT(known.matrix.at(2, 1), 0.8);
  const LearntModel learnt = load_learnt(*store, 0);
  EXPECT_EQ(evaluate(*learnt.model, make_stream(config), false).scores[0], known.matrix.at(2, 0));
  config.train.strategy = "joint";
  EXPECT_GT(acc(run(config, nullptr).matrix), 0.8);
}

TEST(RotatedRun, NeedsImages) {
  RunConfig config = small_config(kMlp);
  config.stream.stream = StreamKind::rotated;
  EXPECT_THROW(run(config, nullptr), InvalidOptions);
  config.stream.stream = StreamKind::permuted;
  config.stream.angle_step = 10;
  EXPECT_THROW(config.validate(), InvalidOptions);
}

}  // namespace
}  // namespace perennial::continual
