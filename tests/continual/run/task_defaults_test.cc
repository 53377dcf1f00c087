// SPDX-License-Identifier: Apache-2.0
// What a run gets where nobody chose a model or a strategy.
#include "perennial/continual/task_defaults.h"

#include <gtest/gtest.h>

#include <boost/json/serialize.hpp>
#include <set>

namespace perennial::continual {
namespace {

RunConfig numbers_config() {
  RunConfig config;
  config.stream.stream = StreamKind::single;
  config.stream.table.task = TaskKind::regression;
  return config;
}

// What is chosen for `config` where these options were given; expects that it says so, and that
// nothing else changes.
bool is_solved(const RunConfig& config, const std::set<std::string>& given = {}) {
  RunConfig now = config;
  const std::string note =
      choose_for_task(now, [&](const std::string& option) { return given.contains(option); });
  RunConfig expected = config;
  if (!note.empty()) {
    EXPECT_NE(note.find("--head analytic --strategy naive"), std::string::npos) << note;
    expected.model.head = HeadKind::analytic;
    expected.train.strategy = "naive";
    now.validate();
  }
  EXPECT_EQ(boost::json::serialize(now.to_json()), boost::json::serialize(expected.to_json()));
  return !note.empty();
}

TEST(TaskDefaults, NumbersOfOneTableAreSolvedFor) {
  const RunConfig config = numbers_config();
  EXPECT_TRUE(is_solved(config));
  for (const char* option : {"seed", "head_width", "head_inputs", "train_seed", "dataset", "stream",
                             "commit_every", "target_column", "hidden_of_another_command"}) {
    EXPECT_TRUE(is_solved(config, {option})) << option;
  }
}

TEST(TaskDefaults, WhatSomebodyChoseStays) {
  const RunConfig config = numbers_config();
  for (const char* option : {"model", "head", "strategy", "width", "heads", "hidden", "top_k",
                             "dropout",                                    // of the model
                             "lr", "optimizer", "clip_norm", "router_lr",  // of training
                             "gate", "growth", "epochs", "amp", "budget"}) {
    EXPECT_FALSE(is_solved(config, {option})) << option;
  }
  // Nothing reads it in either case: that is for another message.
  EXPECT_TRUE(is_solved(config, {"ewc_strength"}));
}

TEST(TaskDefaults, OtherTasksAndStreamsStay) {
  EXPECT_FALSE(is_solved(RunConfig()));
  RunConfig labels = numbers_config();
  labels.stream.table.task = TaskKind::classification;
  EXPECT_FALSE(is_solved(labels));
  for (const StreamKind stream : {StreamKind::permuted, StreamKind::rotated}) {
    RunConfig several = numbers_config();
    several.stream.stream = stream;
    EXPECT_FALSE(is_solved(several)) << enum_name(stream);
  }
}

}  // namespace
}  // namespace perennial::continual
