// SPDX-License-Identifier: Apache-2.0
// Runs in mixed precision: they learn as well as those in float32, with other bits, and resume to
// the bit; a run without it is stored as before there was such an option.
#include <gtest/gtest.h>

#include "continual/run/trainer_testing.h"
#include "perennial/storage/memory_store.h"

namespace perennial::continual {
namespace {

class AmpRunTest : public ::testing::TestWithParam<Case> {};

TEST_P(AmpRunTest, LearnsAsWellAndResumesToTheBit) {
  RunConfig config = small_config(GetParam());
  config.train.epochs = 3;
  const auto off_store = storage::make_memory_store(), whole_store = storage::make_memory_store(),
             store = storage::make_memory_store();
  const RunResult off = run(config, off_store.get());
  config.train.amp = Amp::bf16;
  const RunResult whole = run(config, whole_store.get());
  const RunResult last = learn_in_parts(
      [&](const auto& stop) { return run(config, store.get(), stop); }, one_to_three, 5);
  expect_same_end(last, whole);
  expect_answers_of(whole, *whole_store, make_stream(config));
  EXPECT_NE(whole.state_digest, off.state_digest);
  EXPECT_NEAR(*acc(whole.matrix), *acc(off.matrix), 0.06);
  // Other bits, not only another entry in the record.
  for (const std::string& name : whole_store->dense_names()) {
    if (!name.ends_with("output/weight") && !name.ends_with("/query")) continue;
    EXPECT_NE(*whole_store->read_dense(name), *off_store->read_dense(name)) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, AmpRunTest,
                         ::testing::Values(Case{"grow_freeze", [](RunConfig&) {}},
                                           Case{"shared_trunk",
                                                [](RunConfig& c) {
                                                  c.model.peer.routing = Routing::shared;
                                                  c.model.peer.query_norm = QueryNorm::rms;
                                                  c.model.width = 8;
                                                }},
                                           Case{"mlp",
                                                [](RunConfig& c) {
                                                  c.train.strategy = "naive";
                                                  c.model.model = ModelKind::mlp;
                                                }},
                                           Case{"ewc",
                                                [](RunConfig& c) {
                                                  c.train.strategy = "ewc";
                                                  c.model.model = ModelKind::mlp;
                                                }}),
                         [](const auto& info) { return info.param.name; });

TEST(Amp, IsStoredOnlyWhereItIsOn) {
  RunConfig config = small_config({"", [](RunConfig&) {}});
  EXPECT_FALSE(config.to_json().at("train").as_object().contains("amp"));
  EXPECT_EQ(RunConfig::from_json(config.to_json()).train.amp, Amp::off);
  RunConfig low = config;
  low.train.amp = Amp::bf16;
  EXPECT_EQ(RunConfig::from_json(low.to_json()).train.amp, Amp::bf16);
  EXPECT_EQ(differences(config, low),
            std::vector<std::string>{"train.amp: \"off\" stored, \"bf16\" asked for"});
  EXPECT_EQ(differences(low, config),
            std::vector<std::string>{"train.amp: \"bf16\" stored, \"off\" asked for"});
}

}  // namespace
}  // namespace perennial::continual
