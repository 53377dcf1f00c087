// SPDX-License-Identifier: Apache-2.0
// Run folders that tests write themselves.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "perennial/continual/run_config.h"
#include "perennial/continual/run_folder.h"

namespace perennial::continual {

class FolderTest : public ::testing::Test {
 protected:
  FolderTest() {
    std::string name = (std::filesystem::temp_directory_path() / "perennial-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  ~FolderTest() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path folder_;
};

inline std::string read_text(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_text(const std::filesystem::path& file, const std::string& text) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << text;
}

// Made-up figures of a run over `experiences` with all that a run may record: each experience is
// learnt to 0.9, and loses `forgets` with each one after it.
struct MadeUpRun {
  std::string strategy = "naive";
  int experiences = 5;
  int seed = 1;
  double forgets = 0.1;
  bool routing = true;
  bool ends = true;
  std::vector<std::string> targets = {};  // of a regression, which makes the scores R squared

  double accuracy(int learnt, int j) const {  // both from 1
    const double own = 0.9 + 0.004 * seed - 0.01 * std::sin(j);
    if (j > learnt) return 0.1 + 0.01 * j;
    return std::max(0.1, own - forgets * (learnt - j) * (1 + 0.1 * j));
  }

  boost::json::object config() const {
    RunConfig config;
    config.stream.experiences = experiences;
    config.train.train_seed = seed;
    if (!targets.empty()) config.stream.table.task = TaskKind::regression;
    config.train.anytime = {.anytime_every = 10, .anytime_first = 2, .anytime_examples = 100};
    boost::json::object object = config.to_json();
    object.at("train").as_object()["strategy"] = strategy;
    return object;
  }

  // In thousands, and the more the less R squared there is.
  double error(int learnt, int j) const { return 10'000 * (1 - accuracy(learnt, j)); }

  void write(const std::filesystem::path& folder) const {
    namespace json = boost::json;
    const char* scores = targets.empty() ? "accuracy" : "r2";
    std::string events;
    int line = 0;
    const auto event = [&](json::object fields) {
      fields["unix_ms"] = 1'700'000'000'000 + 1000 * line++;
      events += json::serialize(fields) + "\n";
    };
    const auto row = [&](int learnt) {
      json::array values;
      for (int j = 1; j <= experiences; ++j) values.emplace_back(accuracy(learnt, j));
      json::object evaluate{
          {"event", "evaluate"}, {"row", learnt}, {"steps", 40 * learnt}, {scores, values}};
      if (!targets.empty()) evaluate["rmse"] = json::object();
      for (const std::string& target : targets) {
        json::array errors;
        for (int j = 1; j <= experiences; ++j) errors.emplace_back(error(learnt, j));
        evaluate["rmse"].as_object()[target] = std::move(errors);
      }
      event(std::move(evaluate));
    };
    event({{"event", "start"}, {"config", config()}, {"machine", {{"threads", 2}}}});
    row(0);
    // Joint training has one experience, which ends where the stream does.
    const bool joint = strategy == "joint";
    for (int k = joint ? experiences : 1; k <= experiences; ++k) {
      const int number = joint ? 1 : k;
      for (int b : {0, 1, 2, 10, 20, 30, 40, 41}) {
        if (joint) break;
        json::array values;
        const double share = std::min(1.0, b / 40.0);
        for (int j = 1; j <= k; ++j) {
          values.emplace_back((1 - share) * accuracy(k - 1, j) + share * accuracy(k, j));
        }
        event({{"event", "anytime"},
               {"experience", k},
               {"minibatch", std::min(b, 40)},
               {"steps", 40 * (k - 1) + std::min(b, 40)},
               {"end", b == 41},
               {scores, values}});
      }
      row(k);
      if (routing) {
        json::array drift, leak;
        for (int j = 1; j <= k; ++j) {
          drift.emplace_back(1 - std::exp(-0.4 * (k - j)));
          leak.emplace_back(0.1 * (k - j) / experiences);
        }
        event({{"event", "routing"}, {"row", k}, {"drift", drift}, {"leak", leak}});
      }
      event({{"event", "experience"},
             {"experience", number},
             {"steps", 40 * k},
             {"seconds", 2.5 + 0.1 * seed + 0.05 * k},
             {"examples_per_second", 4000.0 - 10 * k},
             {"parameters", 1'200'000 * k},
             {"replay_bytes", strategy == "replay" ? 1'568'000 : 0},
             {"experts", 1024 * k}});
      event({{"event", "commit"},
             {"action", "experience"},
             {"experience", number},
             {"store_bytes", 12'000'000LL * k}});
    }
    if (ends) event({{"event", "end"}, {"seconds", 20.5}, {"steps", 40 * experiences}});
    write_text(folder / "events.jsonl", events);
  }
};

}  // namespace perennial::continual
