// SPDX-License-Identifier: Apache-2.0
// What a run records of its routing, and that recording it changes nothing.
#include <gmock/gmock.h>

#include <algorithm>
#include <map>

#include "continual/run/run_testing.h"
#include "continual/run/trainer_testing.h"
#include "perennial/continual/report.h"
#include "perennial/continual/run_folder.h"
#include "perennial/storage/memory_store.h"

namespace perennial::continual {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class RoutingRun : public FolderTest {
 protected:
  RunFolder learn(const RunConfig& config, storage::PageStore* store, std::int64_t inputs = 20,
                  const std::function<bool()>& stop = {}) {
    RunSettings settings;
    settings.run_folder = folder_;
    settings.routing_inputs = inputs;
    settings.stop_requested = stop;
    digest_ = Trainer(config, make_stream(config), store, settings).run().state_digest;
    return read_run_folder(folder_);
  }
  std::string digest_;
};

TEST_F(RoutingRun, IsolatedGenerationsNeitherDriftNorLeak) {
  const auto store = storage::make_memory_store();
  const RunFolder run = learn(small_config({"", [](RunConfig&) {}}), store.get());
  ASSERT_THAT(run.routing, SizeIs(3));
  for (std::size_t k = 0; k < 3; ++k) {
    EXPECT_THAT(run.routing[k].drift, SizeIs(k + 1));
    EXPECT_THAT(run.routing[k].drift, Each(0.0));
    EXPECT_THAT(run.routing[k].leak, Each(0.0));
    EXPECT_THAT(run.routing[k].weight_forgetting, SizeIs(k + 1));
    EXPECT_THAT(run.routing[k].weight_forgetting, Each(0.0));
  }
  for (const ExperienceFigures& figures : run.experiences) {
    EXPECT_GT(figures.usage.value(), 0);
    EXPECT_LE(figures.usage.value(), 1);
    EXPECT_GE(figures.unevenness.value(), 0);
    EXPECT_LT(figures.dead_rows.value(), 1);
    EXPECT_GT(figures.hit_rate.value(), 0);
    EXPECT_GT(figures.parameters_added.value(), 0);
  }
  EXPECT_EQ(run.experiences[1].parameters_added, run.experiences[2].parameters_added);

  const std::string html = report_html({run});
  for (const char* figure : {"drift", "leak", "weight-forgetting", "usage", "unevenness",
                             "dead-rows", "hit-rate", "parameters-added"}) {
    EXPECT_THAT(html, HasSubstr("data-figure=\"" + std::string(figure) + "\"")) << figure;
  }
}

TEST_F(RoutingRun, APoolThatTrainsOnDrifts) {
  const RunFolder run =
      learn(small_config({"", [](RunConfig& c) { c.train.strategy = "naive"; }}), nullptr);
  ASSERT_THAT(run.routing, SizeIs(3));
  EXPECT_EQ(run.routing[2].drift[2], 0) << "just learnt";
  EXPECT_GT(run.routing[2].drift[0], 0);
  EXPECT_TRUE(run.routing[2].weight_forgetting.empty()) << "it needs the router as of then";
}

// The entries of the layer's routers.
std::map<std::string, storage::Bytes> routers_of(const storage::PageReader& store) {
  std::map<std::string, storage::Bytes> entries;
  for (const std::string& name : store.dense_names()) {
    if (name.starts_with("peer/router")) entries[name] = *store.read_dense(name);
  }
  return entries;
}

// What the experts of the first row answer with.
torch::Tensor some_experts(const storage::PageReader& store) {
  return load_learnt(store, 0).model->only_layer()->pool().experts_at({0, 1, 2, 3, 4, 5}).v;
}

TEST_F(RoutingRun, SparseSlotsKeepTheRoutesOfTheFirstExperience) {
  for (const auto& [norm, name] : enum_names(QueryNorm{})) {
    SCOPED_TRACE(name);
    RunConfig config = small_config({"", [](RunConfig&) {}});
    config.train.strategy = "sparse_slot";
    config.train.strategy_options.set("update_slots", 5);
    config.model.peer.query_norm = norm;
    const auto store = storage::make_memory_store();
    const std::int64_t steps = make_stream(config).steps_per_epoch(0, config.train.batch);
    int polls = 0;
    std::filesystem::remove_all(folder_);
    learn(config, store.get(), 20, [&] { return ++polls > steps; });
    const std::map<std::string, storage::Bytes> first = routers_of(*store);
    const torch::Tensor experts = some_experts(*store);
    const RunFolder run = learn(config, store.get());
    ASSERT_THAT(run.routing, SizeIs(3));
    for (const RoutingRow& row : run.routing) EXPECT_THAT(row.drift, Each(0.0));
    EXPECT_FALSE(first.empty());
    EXPECT_EQ(routers_of(*store), first);
    EXPECT_FALSE(torch::equal(some_experts(*store), experts)) << "nothing was learnt";
  }
}

TEST_F(RoutingRun, SharedRoutingLeaksIntoNewRows) {
  const RunFolder run = learn(
      small_config({"", [](RunConfig& c) { c.model.peer.routing = Routing::shared; }}), nullptr);
  EXPECT_GT(run.routing[2].leak[0], 0);
  EXPECT_EQ(run.routing[2].leak[2], 0) << "nothing is newer";
}

TEST_F(RoutingRun, RecordingChangesNoBitAndResumes) {
  const RunConfig config = small_config({"", [](RunConfig& c) { c.train.strategy = "naive"; }});
  const auto off = storage::make_memory_store(), on = storage::make_memory_store(),
             stopped = storage::make_memory_store();
  EXPECT_TRUE(learn(config, off.get(), 0).routing.empty());
  const std::string expected = digest_;
  std::filesystem::remove_all(folder_);
  const RunFolder whole = learn(config, on.get());
  EXPECT_EQ(digest_, expected);
  std::filesystem::remove_all(folder_);
  RunFolder last;
  for (int trainers = 0; !last.finished && trainers < 50; ++trainers) {
    int polls = 0;
    last = learn(config, stopped.get(), 20, [&] { return ++polls >= 3; });
  }
  ASSERT_THAT(last.routing, SizeIs(3));
  for (std::size_t k = 0; k < 3; ++k) EXPECT_EQ(last.routing[k].drift, whole.routing[k].drift);
  EXPECT_EQ(last.experiences[2].parameters_added, whole.experiences[2].parameters_added);
}

}  // namespace
}  // namespace perennial::continual
