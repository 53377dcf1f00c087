// SPDX-License-Identifier: Apache-2.0
// Each strategy, killed with SIGKILL at minibatches that nobody chose and continued: accuracy
// matrix and state digest must equal those of a run that nobody disturbed (design invariants 6 and
// 7).
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <ostream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "perennial/storage/rocksdb_store.h"
#include "resume_testing.h"

namespace {

namespace fs = std::filesystem;
using namespace perennial::resume_testing;
using namespace std::chrono_literals;

using Flags = std::vector<std::string>;

// Images of 8 x 8 whose classes differ in which half of which row is bright: small, so that a run
// takes tenths of a second.
void write_images(const fs::path& folder, const std::string& part, int count) {
  const auto big_endian = [](std::string& to, std::uint32_t value) {
    for (int shift = 24; shift >= 0; shift -= 8) to.push_back(static_cast<char>(value >> shift));
  };
  std::mt19937 random(part == "train" ? 3 : 4);
  std::string images, labels;
  for (const std::uint32_t number : {0x803, count, 8, 8}) big_endian(images, number);
  for (const std::uint32_t number : {0x801, count}) big_endian(labels, number);
  for (int i = 0; i < count; ++i) {
    const int label = i % 10;
    labels.push_back(static_cast<char>(label));
    for (int pixel = 0; pixel < 64; ++pixel) {
      const bool bright = pixel / 4 == label;
      images.push_back(static_cast<char>(random() % 120 + (bright ? 120 : 0)));
    }
  }
  std::ofstream(folder / (part + "-images-idx3-ubyte"), std::ios::binary) << images;
  std::ofstream(folder / (part + "-labels-idx1-ubyte"), std::ios::binary) << labels;
}

struct Case {
  std::string name, strategy;
  Flags flags;
};

void PrintTo(const Case& test_case, std::ostream* out) { *out << test_case.name; }

// One after the other, an experience is 300 examples; of a network in 3 passes of 30 steps.
const Flags kMlp = {"--model",  "mlp", "--hidden",       "32", "--dropout", "0.2",
                    "--epochs", "3",   "--commit-every", "7"};
const Flags kPool = {"--rows", "8", "--cols", "8", "--top-k", "4"};
const Flags kGate = {"--features", "64"};

Flags operator+(Flags flags, const Flags& more) {
  flags.insert(flags.end(), more.begin(), more.end());
  return flags;
}

Case mlp(const std::string& strategy, const Flags& more = {}) {
  std::string name = strategy;
  if (name == "der++") name = "derpp";
  return {name, strategy, kMlp + more};
}
Case pool(const std::string& name, const std::string& strategy, const Flags& more = {}) {
  return {name, strategy, kPool + Flags{"--commit-every", "1"} + more};
}

// Memories so small that what they keep is a choice.
const Flags kMemory = {"--memory", "60"}, kTaskMemory = {"--task-memory", "20"};
constexpr const char* kDrift = "growth_drift";

Flags command(const Case& test_case, const fs::path& data, const fs::path& store) {
  return Flags{PERENNIAL_PROGRAM, "train",
               "--store",         store.string(),
               "--json",          "--quiet",
               "--dataset",       data.string(),
               "--experiences",   "3",
               "--limit",         "300",
               "--batch",         "10",
               "--threads",       "1",
               "--strategy",      test_case.strategy} +
         test_case.flags;
}

// Whether what was committed last has batches held back on suspicion of a drift. Looks at a copy:
// who opens a store may repair it.
bool holds_batches(const fs::path& store) {
  const fs::path copy = store.string() + ".copy";
  fs::copy(store, copy, fs::copy_options::recursive);
  bool holds = false;
  {
    const auto opened = perennial::storage::open_rocksdb_store(copy.string(), {});
    EXPECT_TRUE(opened.ok()) << opened.status().message();
    const std::vector<std::string> names = opened.value()->dense_names();
    holds = std::find(names.begin(), names.end(), "strategy/drift_held") != names.end();
  }
  fs::remove_all(copy);
  return holds;
}

// Each strategy with a state of its own, killed at minibatches that nobody chose.
class StrategyResumeTest : public testing::TestWithParam<Case> {};

TEST_P(StrategyResumeTest, KilledRunsEndAsIfNeverInterrupted) {
  const std::string strategy = GetParam().strategy;
  const bool drift = GetParam().name == kDrift;
  const Folder folder;
  write_images(folder.path, "train", 600);
  write_images(folder.path, "t10k", 100);
  const fs::path output = folder.path / "output";
  const auto args = [&](const fs::path& store) {
    return command(GetParam(), folder.path, folder.path / store);
  };
  Process undisturbed(args("undisturbed"), output);
  ASSERT_EQ(undisturbed.wait(), 0) << read(output.string() + ".err");
  const Outcome expected = outcome(output);

  std::mt19937 random(static_cast<std::uint32_t>(std::hash<std::string>{}(GetParam().name)));
  int killed = 0, killed_holding = 0;
  // Of growth on drift until batches were held twice.
  for (int run = 0; run < (drift ? 24 : 2) && (run < 2 || killed_holding < 2); ++run) {
    SCOPED_TRACE("run " + std::to_string(run));
    const std::string store = "killed" + std::to_string(run);
    const fs::path events = folder.path / store / "runs" / strategy / "events.jsonl";
    // In the second or the third experience, where what was kept of the earlier ones counts; joint
    // training has one.
    const int ended = strategy == "joint" ? 0 : 1 + run % 2;
    const int more = std::uniform_int_distribution<int>(1, 6)(random);
    const auto delay =
        std::chrono::microseconds(std::uniform_int_distribution<int>(0, 5000)(random));
    Process process(args(store), output);
    while (process.running() && count_events(events, "experience") < ended) {
      std::this_thread::sleep_for(1ms);
    }
    const int before = count_events(events, "commit");
    while (process.running() && count_events(events, "commit") < before + more) {
      std::this_thread::sleep_for(1ms);
    }
    std::this_thread::sleep_for(delay);
    if (process.kill_hard()) {
      ++killed;
      killed_holding += drift && holds_batches(folder.path / store) ? 1 : 0;
    }
    Process last(args(store), output);
    ASSERT_EQ(last.wait(), 0) << read(output.string() + ".err");
    EXPECT_EQ(outcome(output), expected);
  }
  std::printf("killed: %d\n", killed);
  EXPECT_GT(killed, 0) << "no run was killed: this says nothing";
  if (!drift) return;
  std::printf("killed while batches were held: %d\n", killed_holding);
  EXPECT_GT(killed_holding, 0) << "none of them was held: this says nothing";
  EXPECT_GT(count_events(folder.path / "undisturbed/runs/grow_freeze/events.jsonl", "drift"), 0);
}

INSTANTIATE_TEST_SUITE_P(
    Strategies, StrategyResumeTest,
    testing::Values(
        mlp("joint"), mlp("cumulative"), mlp("l2"), mlp("ewc"), mlp("online_ewc"), mlp("si"),
        mlp("mas"), mlp("lwf"), mlp("er", kMemory), mlp("er_ace", kMemory), mlp("der", kMemory),
        mlp("der++", kMemory), mlp("gem", kTaskMemory), mlp("agem", kTaskMemory),
        mlp("gdumb", kMemory + Flags{"--gdumb-epochs", "5"}),
        mlp("icarl", kMemory + Flags{"--scenario", "class"}), mlp("packnet", {"--gate", "oracle"}),
        mlp("progressive", {"--gate", "oracle"}),
        pool("sparse_slot", "sparse_slot", {"--update-slots", "8"}),
        pool("autoencoder_gate", "grow_freeze",
             {"--gate", "autoencoder", "--autoencoder-code", "8"}),
        pool("output_regularisation", "grow_freeze",
             {"--routing", "shared", "--output-regularisation", "1"}),
        pool("growth_by_need", "grow_freeze",
             kGate + Flags{"--growth-size", "need", "--growth-start", "2", "--growth-window", "5",
                           "--growth-loss", "0.1"}),
        pool("class_heads", "grow_freeze",
             kGate + Flags{"--head-weight", "1", "--gate-answer", "mixed"}),
        // Half of the batches are suspicious and held back, some of them turn out to be a drift.
        pool(kDrift, "grow_freeze",
             kGate + Flags{"--growth", "drift", "--drift-threshold", "0.1", "--drift-steps", "6",
                           "--drift-window", "4"})),
    [](const auto& info) { return info.param.name; });

}  // namespace
