// SPDX-License-Identifier: Apache-2.0
// Runs of the program are killed with SIGKILL at many points and continued; accuracy matrix and
// state digest must equal those of a run that nobody disturbed (design invariants 6 and 7).
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "perennial/storage/rocksdb_store.h"

namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using namespace std::chrono_literals;

// The demo's configuration, shortened: fewer examples, so that a run takes seconds.
std::vector<std::string> command(const std::string& strategy, const fs::path& store) {
  std::vector<std::string> args = {PERENNIAL_PROGRAM, "train",   "--store",        store.string(),
                                   "--json",          "--quiet", "--limit",        "1024",
                                   "--test-limit",    "400",     "--commit-every", "3",
                                   "--strategy",      strategy};
  if (strategy == "naive") args.insert(args.end(), {"--rows", "160"});
  return args;
}

class Process {
 public:
  Process(const std::vector<std::string>& args, const fs::path& output) {
    std::vector<char*> argv;
    for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      const int out = open(output.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
      const int err = open((output.string() + ".err").c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
      dup2(out, STDOUT_FILENO);
      dup2(err, STDERR_FILENO);
      execv(argv[0], argv.data());
      _exit(127);
    }
  }
  ~Process() {
    if (!waited_) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }
  bool running() {
    if (!waited_ && waitpid(pid_, &status_, WNOHANG) == pid_) waited_ = true;
    return !waited_;
  }
  // True if the signal ended it, false if it had ended by itself.
  bool kill_hard() {
    if (!running()) return false;
    kill(pid_, SIGKILL);
    waitpid(pid_, &status_, 0);
    waited_ = true;
    return WIFSIGNALED(status_);
  }
  int wait() {
    if (!waited_) waitpid(pid_, &status_, 0);
    waited_ = true;
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : -1;
  }

 private:
  pid_t pid_ = -1;
  int status_ = 0;
  bool waited_ = false;
};

std::string read(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Events of one name in the run's record so far.
int count_events(const fs::path& events, const std::string& name) {
  const std::string text = read(events), key = "{\"event\":\"" + name + "\"";
  int count = 0;
  for (std::size_t at = text.find(key); at != std::string::npos; at = text.find(key, at + 1))
    ++count;
  return count;
}

struct Outcome {
  std::string matrix;
  std::string digest;
  std::string gate_accuracy;
  bool operator==(const Outcome&) const = default;
};

Outcome outcome(const fs::path& output) {
  std::string text = read(output);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  const json::object object = json::parse(text.substr(text.rfind('\n') + 1)).as_object();
  EXPECT_TRUE(object.at("finished").as_bool());
  return {json::serialize(object.at("matrix")), std::string(object.at("state_digest").as_string()),
          json::serialize(object.at("gate_accuracy"))};
}

class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "perennial-resume-XXXXXX").string();
    path = mkdtemp(name.data());
  }
  ~Folder() { fs::remove_all(path); }
  fs::path path;
};

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

// Growth where nobody announces boundaries, in the list of strategies.
constexpr const char* kDrift = "grow_freeze, growth drift";

// One after the other, an experience is 300 examples in 3 passes of 30 steps.
std::vector<std::string> small_command(const std::string& strategy, const fs::path& data,
                                       const fs::path& store) {
  std::vector<std::string> args = {PERENNIAL_PROGRAM, "train",   "--store",        store.string(),
                                   "--json",          "--quiet", "--dataset",      data.string(),
                                   "--experiences",   "3",       "--limit",        "300",
                                   "--model",         "mlp",     "--hidden",       "32",
                                   "--dropout",       "0.2",     "--epochs",       "3",
                                   "--batch",         "10",      "--commit-every", "7",
                                   "--threads",       "1",       "--strategy",     strategy};
  // Memories so small that what they keep is a choice.
  if (strategy == "er" || strategy == "der++" || strategy == "gdumb" || strategy == "icarl") {
    args.insert(args.end(), {"--memory", "60"});
  }
  if (strategy == "gem" || strategy == "agem") {
    args.insert(args.end(), {"--task-memory", "20"});
  }
  if (strategy == "icarl") args.insert(args.end(), {"--scenario", "class"});
  if (strategy == "gdumb") args.insert(args.end(), {"--gdumb-epochs", "5"});
  if (strategy == kDrift) {
    // Half of the batches are suspicious and held back, and some of them turn out to be a drift.
    std::vector<std::string> pool = args;
    pool.back() = "grow_freeze";
    const auto drop = [&](const std::string& flag) {
      const auto at = std::find(pool.begin(), pool.end(), flag);
      pool.erase(at, at + 2);
    };
    for (const char* flag : {"--hidden", "--epochs", "--dropout"}) drop(flag);
    *(std::find(pool.begin(), pool.end(), "mlp")) = "peer";
    *(std::find(pool.begin(), pool.end(), "--commit-every") + 1) = "1";
    pool.insert(pool.end(), {"--growth", "drift", "--drift-threshold", "0.1", "--drift-steps", "6",
                             "--drift-window", "4", "--features", "64", "--rows", "8", "--cols",
                             "8", "--top-k", "4"});
    return pool;
  }
  if (strategy == "packnet" || strategy == "progressive") {
    args.insert(args.end(), {"--gate", "oracle"});
  }
  return args;
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

class ResumeTest : public testing::TestWithParam<std::string> {};

TEST_P(ResumeTest, KilledRunsEndAsIfNeverInterrupted) {
  const std::string strategy = GetParam();
  const Folder folder;
  const fs::path output = folder.path / "output";
  Process undisturbed(command(strategy, folder.path / "undisturbed"), output);
  ASSERT_EQ(undisturbed.wait(), 0) << read(output.string() + ".err");
  const Outcome expected = outcome(output);

  // Killed a moment after an event was recorded: after "freeze" the test sets are evaluated, after
  // "evaluate" comes the commit, after "commit" the next steps, or growth.
  std::vector<std::string> aims = {"evaluate", "commit"};
  if (strategy == "grow_freeze") aims.insert(aims.end(), {"grow", "freeze"});
  std::mt19937 random(strategy == "naive" ? 11 : 12);
  std::map<std::string, int> killed;
  constexpr int kRuns = 10;
  for (int run = 0; run < kRuns; ++run) {
    SCOPED_TRACE("run " + std::to_string(run));
    const fs::path store = folder.path / ("killed" + std::to_string(run));
    const fs::path events = store / "runs" / strategy / "events.jsonl";
    for (int kills = 0; kills < 2; ++kills) {
      const std::string aim = aims[static_cast<std::size_t>(2 * run + kills) % aims.size()];
      const int before = count_events(events, aim);
      const int more = std::uniform_int_distribution<int>(1, 2)(random);
      const auto delay =
          std::chrono::microseconds(std::uniform_int_distribution<int>(0, 30000)(random));
      Process process(command(strategy, store), output);
      while (process.running() && count_events(events, aim) < before + more) {
        std::this_thread::sleep_for(1ms);
      }
      std::this_thread::sleep_for(delay);
      if (process.kill_hard()) ++killed[aim];
    }
    Process last(command(strategy, store), output);
    ASSERT_EQ(last.wait(), 0) << read(output.string() + ".err");
    EXPECT_EQ(outcome(output), expected);
    // What was repeated is in the record once.
    EXPECT_EQ(
        count_events(events, "evaluate"),
        count_events(folder.path / "undisturbed" / "runs" / strategy / "events.jsonl", "evaluate"));
    fs::remove_all(store);
  }
  int all = 0;
  for (const auto& [aim, count] : killed) {
    all += count;
    RecordProperty("killed_after_" + aim, count);
    std::printf("killed after %s: %d\n", aim.c_str(), count);
  }
  EXPECT_GE(all, kRuns) << "too few runs were killed to say anything";
  for (const std::string& aim : aims) EXPECT_GT(killed[aim], 0) << aim;
}

INSTANTIATE_TEST_SUITE_P(Strategies, ResumeTest, testing::Values("naive", "grow_freeze"),
                         [](const auto& info) { return info.param; });

// Each strategy with a state of its own, killed at minibatches that nobody chose.
class StrategyResumeTest : public testing::TestWithParam<std::string> {};

TEST_P(StrategyResumeTest, KilledRunsEndAsIfNeverInterrupted) {
  const std::string strategy = GetParam();
  const bool drift = strategy == kDrift;
  const Folder folder;
  write_images(folder.path, "train", 600);
  write_images(folder.path, "t10k", 100);
  const fs::path output = folder.path / "output";
  const auto args = [&](const fs::path& store) {
    return small_command(strategy, folder.path, folder.path / store);
  };
  Process undisturbed(args("undisturbed"), output);
  ASSERT_EQ(undisturbed.wait(), 0) << read(output.string() + ".err");
  const Outcome expected = outcome(output);

  std::mt19937 random(static_cast<std::uint32_t>(std::hash<std::string>{}(strategy)));
  int killed = 0, killed_holding = 0;
  // Of growth on drift until batches were held twice.
  for (int run = 0; run < (drift ? 24 : 2) && (run < 2 || killed_holding < 2); ++run) {
    SCOPED_TRACE("run " + std::to_string(run));
    const std::string store = "killed" + std::to_string(run);
    const fs::path events =
        folder.path / store / "runs" / (drift ? "grow_freeze" : strategy) / "events.jsonl";
    // In the second or the third experience, where what was kept of the earlier ones counts.
    const int ended = 1 + run % 2;
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

INSTANTIATE_TEST_SUITE_P(Strategies, StrategyResumeTest,
                         testing::Values("l2", "ewc", "si", "lwf", "er", "der++", "gem", "agem",
                                         "gdumb", "icarl", "packnet", "progressive", kDrift),
                         [](const auto& info) -> std::string {
                           if (info.param == kDrift) return "growth_drift";
                           return info.param == "der++" ? "derpp" : info.param;
                         });

json::object json_of(const fs::path& output) {
  std::string text = read(output);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return json::parse(text.substr(text.rfind('\n') + 1)).as_object();
}

TEST(UnlearnTest, KilledAtAnyInstantLeavesTheStateBeforeOrAfter) {
  const Folder folder;
  const fs::path output = folder.path / "output", learnt = folder.path / "learnt";
  Process training(command("grow_freeze", learnt), output);
  ASSERT_EQ(training.wait(), 0) << read(output.string() + ".err");
  const std::string before(json_of(output).at("state_digest").as_string());
  const auto unlearn = [](const fs::path& store) {
    return std::vector<std::string>{PERENNIAL_PROGRAM, "unlearn", "--store", store.string(),
                                    "--generation",    "4",       "--json"};
  };
  const auto copy = [&](const std::string& name) {
    const fs::path store = folder.path / name;
    fs::copy(learnt, store, fs::copy_options::recursive);
    return store;
  };
  const fs::path whole = copy("whole");
  const auto start = std::chrono::steady_clock::now();
  Process undisturbed(unlearn(whole), output);
  ASSERT_EQ(undisturbed.wait(), 0) << read(output.string() + ".err");
  const auto takes = std::chrono::steady_clock::now() - start;
  const std::string after(json_of(output).at("state_digest").as_string());
  ASSERT_NE(after, before);

  std::mt19937 random(5);
  std::map<std::string, int> found;
  int killed = 0;
  for (int run = 0; run < 16; ++run) {
    const fs::path store = copy("killed" + std::to_string(run));
    Process process(unlearn(store), output);
    // The commit is near the end.
    std::this_thread::sleep_for(takes * std::uniform_int_distribution<int>(40, 100)(random) / 100);
    killed += process.kill_hard() ? 1 : 0;
    const auto newest = [&] {
      Process log({PERENNIAL_PROGRAM, "log", "--store", store.string(), "--json"}, output);
      EXPECT_EQ(log.wait(), 0) << read(output.string() + ".err");
      return std::string(
          json_of(output).at("commits").as_array().back().at("state_digest").as_string());
    };
    const std::string now = newest();
    EXPECT_TRUE(now == before || now == after) << now;
    ++found[now == before ? "before" : "after"];
    if (now == before) {
      // A commit that was whole but not yet in the store is taken in by the next who writes: then
      // there is nothing left to unlearn.
      Process again(unlearn(store), output);
      const int code = again.wait();
      EXPECT_TRUE(code == 0 ||
                  (code == 2 && read(output.string() + ".err").find("the store has 0 to 3") !=
                                    std::string::npos))
          << read(output.string() + ".err");
      EXPECT_EQ(newest(), after);
    }
    fs::remove_all(store);
  }
  std::printf("killed %d: %d before, %d after\n", killed, found["before"], found["after"]);
  EXPECT_GE(killed, 4) << "too few were killed to say anything";
}

}  // namespace
