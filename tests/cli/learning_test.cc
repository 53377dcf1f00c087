// SPDX-License-Identifier: Apache-2.0
// The built program learning a small data set of its own: train, stop, resume, page, eval, predict,
// grow, freeze and restore, each compared bit for bit with what it must equal.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/json/parse.hpp>
#include <boost/json/value_to.hpp>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <span>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "perennial/storage/rocksdb_store.h"

extern char** environ;

namespace perennial::cli {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using testing::HasSubstr;

constexpr int kClasses = 3, kSide = 8, kPixels = kSide * kSide;
constexpr int kTrain = 600, kTest = 150;
constexpr int kPredicted = 20;  // rows given to predict

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_file(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// An IDX file of bytes.
std::string idx(const std::vector<std::uint32_t>& shape, const std::string& bytes) {
  std::string file = {0, 0, 8, static_cast<char>(shape.size())};
  for (const std::uint32_t size : shape) {
    for (int shift = 24; shift >= 0; shift -= 8) file += static_cast<char>(size >> shift);
  }
  return file + bytes;
}

// Images of a class are its own pattern and noise: learnt in a few hundred examples.
struct Images {
  std::string pixels, labels;
};
Images make_images(int count, unsigned seed) {
  std::mt19937 patterns(7), noise(seed);
  std::array<std::array<int, kPixels>, kClasses> pattern{};
  for (auto& of_class : pattern) {
    for (int& pixel : of_class) pixel = patterns() % 3 == 0 ? 150 : 0;
  }
  Images images;
  for (int i = 0; i < count; ++i) {
    const int label = i % kClasses;
    images.labels += static_cast<char>(label);
    for (const int pixel : pattern[static_cast<std::size_t>(label)]) {
      images.pixels += static_cast<char>(pixel + static_cast<int>(noise() % 100));
    }
  }
  return images;
}

std::string npy(const std::string& pixels, int rows) {
  std::string header = "{'descr': '|u1', 'fortran_order': False, 'shape': (" +
                       std::to_string(rows) + ", " + std::to_string(kPixels) + "), }";
  header += std::string(63 - (10 + header.size()) % 64, ' ') + '\n';
  const auto size = static_cast<unsigned>(header.size());
  return std::string("\x93NUMPY\x01\x00", 8) + static_cast<char>(size & 255) +
         static_cast<char>(size >> 8) + header + pixels;
}

std::string csv(const std::string& pixels, int rows) {
  std::string text;
  for (int i = 0; i < rows * kPixels; ++i) {
    text += std::to_string(static_cast<unsigned char>(pixels[static_cast<std::size_t>(i)]));
    text += (i + 1) % kPixels == 0 ? '\n' : ',';
  }
  return text;
}

struct Finished {
  int code = -1;
  std::string out;
  std::string err;

  json::object object() const {
    const std::string lines = out.substr(0, out.empty() ? 0 : out.size() - 1);
    boost::system::error_code error;
    const json::value value = json::parse(lines.substr(lines.rfind('\n') + 1), error);
    return !error && value.is_object() ? value.as_object() : json::object{};
  }
};

using Args = std::vector<std::string>;

Args operator+(Args left, const Args& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

class LearningTest : public testing::Test {
 protected:
  LearningTest() {
    std::string name = (fs::temp_directory_path() / "perennial-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
    const fs::path data = folder_ / "data";
    fs::create_directories(data);
    const Images train = make_images(kTrain, 1), test = make_images(kTest, 2);
    write_file(data / "train-images-idx3-ubyte", idx({kTrain, kSide, kSide}, train.pixels));
    write_file(data / "train-labels-idx1-ubyte", idx({kTrain}, train.labels));
    write_file(data / "t10k-images-idx3-ubyte", idx({kTest, kSide, kSide}, test.pixels));
    write_file(data / "t10k-labels-idx1-ubyte", idx({kTest}, test.labels));
    test_ = test;
  }
  ~LearningTest() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  // Starts the program; finish() waits for it. One at a time.
  pid_t start(const Args& args) const {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    constexpr int kFlags = O_WRONLY | O_CREAT | O_TRUNC;
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, path("out").c_str(), kFlags, 0600);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, path("err").c_str(), kFlags, 0600);
    Args words = Args{PERENNIAL_PROGRAM} + args;
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    pid_t child = 0;
    EXPECT_EQ(::posix_spawn(&child, PERENNIAL_PROGRAM, &actions, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    return child;
  }
  Finished finish(pid_t child) const {
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status),
            read_file(path("out")), read_file(path("err"))};
  }
  Finished run(const Args& args) const { return finish(start(args)); }
  // Runs a command that must succeed, with --json, and gives its object.
  json::object succeed(const Args& args) const {
    const Finished finished = run(args + Args{"--json", "--quiet"});
    EXPECT_EQ(finished.code, 0) << finished.err;
    EXPECT_EQ(finished.err, "");
    EXPECT_FALSE(finished.object().empty()) << finished.out;
    return finished.object();
  }

  // A short run; 16 x 16 experts, so that it is quick. Only flags that the run looks at are given.
  Args train(const std::string& store, const std::string& strategy = "grow_freeze",
             const std::string& model = "peer", const std::string& gate = "automatic") const {
    Args args = {"train",  "--store",   path(store), "--dataset", path("data"), "--strategy",
                 strategy, "--batch",   "50",        "--lr",      "0.01",       "--experiences",
                 "2",      "--threads", "1",         "--epochs",  "2",          "--commit-every",
                 "5",      "--model",   model,       "--gate",    gate};
    if (model == "peer") args = args + Args{"--rows", "16", "--cols", "16", "--v-scale", "0.5"};
    if (strategy == "grow_freeze" && gate == "automatic") args = args + Args{"--features", "200"};
    return args;
  }

  // Wrong usage or data: one line on standard error and at most a hint, no output.
  void expect_refused(const Args& args, int code, const Args& parts) const {
    const Finished finished = run(args);
    SCOPED_TRACE(finished.err);
    EXPECT_EQ(finished.code, code);
    EXPECT_EQ(finished.out, "");
    std::istringstream lines(finished.err);
    std::string line, hint, more;
    ASSERT_TRUE(std::getline(lines, line));
    EXPECT_TRUE(line.starts_with("perennial: "));
    for (const std::string& part : parts) EXPECT_THAT(line, HasSubstr(part));
    if (std::getline(lines, hint)) {
      EXPECT_TRUE(hint.starts_with("hint: "));
    }
    EXPECT_FALSE(std::getline(lines, more)) << more;
  }

  // What a store holds: its commits' files and the run's records, without the bookkeeping that
  // RocksDB renews whenever it opens.
  std::map<std::string, std::string> content(const std::string& store) const {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(folder_ / store)) {
      const fs::path& file = entry.path();
      if (file.extension() == ".sst" || file.string().find("/runs/") != std::string::npos) {
        files[file.string()] = entry.is_regular_file() ? read_file(file) : "";
      }
    }
    return files;
  }
  json::value commits(const std::string& store) const {
    return succeed({"log", "--store", path(store)}).at("commits");
  }

  fs::path folder_;
  Images test_;
};

// Every value is a fraction. Joint training has only the first and the last row.
void expect_matrix(const json::object& result, std::size_t experiences, bool joint = false) {
  const json::array& rows = result.at("matrix").as_array();
  ASSERT_EQ(rows.size(), experiences + 1);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const json::value& row = rows[i];
    if (joint && i > 0 && i < experiences) {
      EXPECT_TRUE(row.is_null());
      continue;
    }
    ASSERT_TRUE(row.is_array());
    ASSERT_EQ(row.as_array().size(), experiences);
    for (const json::value& value : row.as_array()) {
      ASSERT_TRUE(value.is_double());
      EXPECT_GE(value.as_double(), 0);
      EXPECT_LE(value.as_double(), 1);
    }
  }
}

TEST_F(LearningTest, GrowFreezeLearnsAndReportsWhatItLearnt) {
  const json::object result = succeed(train("store"));
  for (const char* field : {"acc", "bwt.gem", "fwt.gem", "forgetting.chaudhry", "gate_accuracy"}) {
    ASSERT_TRUE(result.contains(field)) << field;
    EXPECT_TRUE(result.at(field).is_double()) << field;
  }
  expect_matrix(result, 2);
  EXPECT_GT(result.at("acc").as_double(), 0.8);
  EXPECT_GT(result.at("gate_accuracy").as_double(), 0.95);
  EXPECT_EQ(result.at("finished"), true);
  EXPECT_EQ(result.at("steps"), 48);  // 2 experiences x 2 passes x 600 / 50
  EXPECT_EQ(result.at("state_digest").as_string().size(), 32U);
  EXPECT_EQ(std::string(result.at("store").as_string()), path("store"));
  const fs::path records = std::string(result.at("run_folder").as_string());
  for (const char* file : {"events.jsonl", "metrics.csv", "summary.json"}) {
    EXPECT_TRUE(fs::exists(records / file)) << file;
  }

  // The same command on another store, and on two of the same, ends in the same state.
  const json::object twin = succeed(train("twin"));
  EXPECT_EQ(twin.at("state_digest"), result.at("state_digest"));
  EXPECT_EQ(twin.at("matrix"), result.at("matrix"));
  EXPECT_NE(succeed(train("other") + Args{"--train-seed", "2"}).at("state_digest"),
            result.at("state_digest"));

  // eval reads back what the run measured last.
  const json::object evaluated = succeed({"eval", "--store", path("store")});
  EXPECT_EQ(evaluated.at("accuracy"), result.at("matrix").as_array().back());
  EXPECT_EQ(evaluated.at("gate_accuracy"), result.at("gate_accuracy"));

  // A finished run has nothing left to do.
  const json::value before = commits("store");
  const auto files = content("store");
  const json::object again = succeed({"train", "--store", path("store"), "--threads", "1"});
  EXPECT_EQ(again.at("matrix"), result.at("matrix"));
  EXPECT_EQ(again.at("state_digest"), result.at("state_digest"));
  EXPECT_EQ(commits("store"), before);
  EXPECT_EQ(content("store"), files);

  // Text for people says the same, and --quiet silences the progress alone.
  const Finished people = run({"train", "--store", path("store"), "--threads", "1", "--quiet"});
  EXPECT_EQ(people.code, 0);
  EXPECT_EQ(people.err, "");
  EXPECT_THAT(people.out, HasSubstr(std::string(result.at("state_digest").as_string())));
  EXPECT_THAT(people.out, HasSubstr("experience 2"));
}

TEST_F(LearningTest, NaiveAndJointLearnWithEitherModel) {
  for (const std::string strategy : {"naive", "joint"}) {
    for (const std::string model : {"mlp", "peer"}) {
      SCOPED_TRACE(strategy + " " + model);
      const std::string store = strategy + "-" + model;
      const json::object result = succeed(train(store, strategy, model));
      expect_matrix(result, 2, strategy == "joint");
      EXPECT_GT(result.at("acc").as_double(), 0.5);
      EXPECT_EQ(result.at("gate_accuracy"), nullptr);
      EXPECT_EQ(result.contains("pager"), model == "peer");
      // Joint training never forgets: it has no experience before the last.
      EXPECT_EQ(result.at("bwt.gem").is_null(), strategy == "joint");
      const json::object evaluated = succeed({"eval", "--store", path(store)});
      EXPECT_EQ(evaluated.at("accuracy"), result.at("matrix").as_array().back());
      if (strategy == "joint") continue;
      const json::object twin = succeed(train(store + "-twin", strategy, model));
      EXPECT_EQ(twin.at("state_digest"), result.at("state_digest"));
    }
  }
}

TEST_F(LearningTest, TheOracleGateIsEvaluatedAsItWasTrained) {
  const json::object result = succeed(train("store", "grow_freeze", "peer", "oracle"));
  EXPECT_GT(result.at("acc").as_double(), 0.8);
  const json::object evaluated = succeed({"eval", "--store", path("store")});
  EXPECT_EQ(evaluated.at("accuracy"), result.at("matrix").as_array().back());
  EXPECT_EQ(evaluated.at("oracle"), true);
}

TEST_F(LearningTest, TheSmallestBudgetChangesNoBit) {
  const Args shape = {"--rows", "32",      "--cols", "32",           "--heads",
                      "1",      "--top-k", "2",      "--page-bytes", "2048"};
  Args small = train("small");
  for (std::size_t i = 0; i + 1 < small.size();) {  // rows and cols are given by `shape`
    if (small[i] == "--rows" || small[i] == "--cols") {
      small.erase(small.begin() + static_cast<std::ptrdiff_t>(i),
                  small.begin() + static_cast<std::ptrdiff_t>(i) + 2);
    } else {
      ++i;
    }
  }
  small = small + shape;
  Args whole = small;
  whole[2] = path("whole");
  const json::object free = succeed(whole);

  // The refusals say what is needed, first without optimizer state perhaps, and make no store.
  std::int64_t budget = 1;
  for (int tries = 0; tries < 3; ++tries) {
    const Finished refused = run(small + Args{"--budget", std::to_string(budget)});
    if (refused.code == 0) {
      fs::remove_all(folder_ / "small");
      break;
    }
    ASSERT_EQ(refused.code, 2) << refused.err;
    ASSERT_FALSE(fs::exists(folder_ / "small"));
    const std::string figure = "at least ";
    const std::size_t at = refused.err.find(figure);
    ASSERT_NE(at, std::string::npos) << refused.err;
    const std::int64_t needed = std::stoll(refused.err.substr(at + figure.size()));
    ASSERT_GT(needed, budget);
    budget = needed;
  }
  ASSERT_EQ(run(small + Args{"--budget", std::to_string(budget - 1)}).code, 2);
  const json::object paged = succeed(small + Args{"--budget", std::to_string(budget)});
  EXPECT_EQ(paged.at("state_digest"), free.at("state_digest"));
  EXPECT_EQ(paged.at("matrix"), free.at("matrix"));
  const json::object& pager = paged.at("pager").as_object();
  for (const char* count : {"evicted", "spilled", "unspilled"}) {
    EXPECT_GT(json::value_to<std::int64_t>(pager.at(count)), 0) << count;
    EXPECT_EQ(json::value_to<std::int64_t>(free.at("pager").at(count)), 0) << count;
  }
  EXPECT_LE(json::value_to<std::int64_t>(pager.at("peak_bytes")), budget);
  const json::object inspected = succeed({"inspect", "--store", path("small")});
  EXPECT_GE(json::value_to<std::int64_t>(inspected.at("pages")) *
                json::value_to<std::int64_t>(inspected.at("page_bytes")),
            8 * budget);
  EXPECT_EQ(inspected.at("pager").at("evicted"), pager.at("evicted"));
  EXPECT_EQ(inspected.at("pager").at("spilled"), pager.at("spilled"));
  EXPECT_EQ(succeed({"eval", "--store", path("small"), "--budget", std::to_string(budget)})
                .at("accuracy"),
            free.at("matrix").as_array().back());
}

TEST_F(LearningTest, StoppedRunsResumeToTheSameState) {
  for (const std::string strategy : {"grow_freeze", "naive"}) {
    SCOPED_TRACE(strategy);
    const Args passes = {"--page-bytes", "4096"};
    const json::object whole = succeed(train(strategy + "-whole", strategy) + passes);
    const std::string store = strategy + "-stopped";
    const std::array<int, 4> signals = {SIGINT, SIGKILL, SIGTERM, SIGINT};
    int stopped = 0;
    for (std::size_t i = 0; i < signals.size(); ++i) {
      const fs::path events = folder_ / store / "runs" / strategy / "events.jsonl";
      const auto before = fs::exists(events) ? fs::file_size(events) : 0;
      const pid_t child = start(train(store, strategy) + passes + Args{"--json"});
      // Once it has begun to train: it recorded a commit or the resumption.
      for (int wait = 0; wait < 5000; ++wait) {
        if (fs::exists(events) && fs::file_size(events) > before) break;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      ::kill(child, signals[i]);
      const Finished finished = finish(child);
      if (signals[i] == SIGKILL) {
        EXPECT_TRUE(finished.code == 1000 + SIGKILL || finished.code == 0);
        continue;
      }
      EXPECT_EQ(finished.code, 0) << finished.err;
      if (finished.object().at("finished") == true) continue;
      ++stopped;
      EXPECT_THAT(finished.err, HasSubstr("go on with: perennial train --store " + path(store)));
      const json::array log = commits(store).as_array();
      EXPECT_EQ(finished.object().at("state_digest"), log.back().at("state_digest"));
    }
    EXPECT_GT(stopped, 0);
    const json::object resumed = succeed({"train", "--store", path(store), "--threads", "1"});
    EXPECT_EQ(resumed.at("finished"), true);
    EXPECT_EQ(resumed.at("state_digest"), whole.at("state_digest"));
    EXPECT_EQ(resumed.at("matrix"), whole.at("matrix"));
    EXPECT_EQ(resumed.at("steps"), whole.at("steps"));
    EXPECT_EQ(run({"verify", "--store", path(store)}).code, 0);
  }
}

TEST_F(LearningTest, PredictsTheSameFromEveryFormat) {
  const json::object result = succeed(train("store"));
  const std::string pixels = test_.pixels.substr(0, std::size_t{kPredicted} * kPixels);
  write_file(folder_ / "rows.idx", idx({kPredicted, kSide, kSide}, pixels));
  write_file(folder_ / "rows.npy", npy(pixels, kPredicted));
  write_file(folder_ / "rows.csv", csv(pixels, kPredicted));
  const Finished from_idx = run({"predict", "--store", path("store"), "--input", path("rows.idx")});
  ASSERT_EQ(from_idx.code, 0) << from_idx.err;
  EXPECT_EQ(from_idx.err, "");
  for (const char* file : {"rows.npy", "rows.csv"}) {
    const Finished same = run({"predict", "--store", path("store"), "--input", path(file)});
    EXPECT_EQ(same.code, 0) << same.err;
    EXPECT_EQ(same.out, from_idx.out) << file;
  }
  std::istringstream lines(from_idx.out);
  std::string line;
  ASSERT_TRUE(std::getline(lines, line));
  EXPECT_EQ(line, "row,label,confidence,generation");
  int rows = 0, right = 0;
  for (; std::getline(lines, line); ++rows) {
    EXPECT_THAT(line, testing::MatchesRegex("[0-9]+,[0-2],[01]\\.[0-9]+,[01]"));
    EXPECT_TRUE(line.starts_with(std::to_string(rows) + ","));
    const std::size_t at = line.find(',') + 1;
    right += line[at] - '0' == test_.labels[static_cast<std::size_t>(rows)] ? 1 : 0;
  }
  EXPECT_EQ(rows, kPredicted);
  EXPECT_GE(right, kPredicted * 3 / 4);

  // --output and --quiet give the same rows; --json gives them as an object.
  const Args predict = {"predict", "--store", path("store"), "--input", path("rows.csv")};
  EXPECT_EQ(run(predict + Args{"--quiet"}).out, from_idx.out);
  const Finished to_file = run(predict + Args{"--output", path("labels.csv")});
  EXPECT_EQ(to_file.code, 0) << to_file.err;
  EXPECT_EQ(to_file.out, "");
  EXPECT_EQ(read_file(folder_ / "labels.csv"), from_idx.out);
  const json::array predictions = succeed(predict).at("predictions").as_array();
  ASSERT_EQ(predictions.size(), std::size_t{kPredicted});
  EXPECT_TRUE(predictions[0].at("label").is_string());
  EXPECT_TRUE(predictions[0].at("confidence").is_double());
  EXPECT_TRUE(predictions[0].at("generation").is_int64());
  const json::object told = succeed(predict + Args{"--generation", "1"});
  for (const json::value& row : told.at("predictions").as_array()) {
    EXPECT_EQ(row.at("generation"), 1);
  }

  expect_refused(predict + Args{"--generation", "2"}, 2, {"--generation is 2", "0 to 1"});
  expect_refused(predict + Args{"--output", path("no/labels.csv")}, 1, {"labels.csv"});
  write_file(folder_ / "narrow.csv", "1,2,3\n");
  expect_refused({"predict", "--store", path("store"), "--input", path("narrow.csv")}, 3,
                 {"narrow.csv", "rows of 3", "rows of 64"});
}

TEST_F(LearningTest, GrowsFreezesAndRestores) {
  const json::object result = succeed(train("store"));
  const Args at_store = {"--store", path("store")};
  const json::object learnt = succeed(Args{"eval"} + at_store);
  const json::object grown =
      succeed(Args{"grow", "--freeze", "--rows", "64", "--snapshot", "wide"} + at_store);
  EXPECT_EQ(grown.at("pages_written"), 0);
  EXPECT_EQ(grown.at("snapshot"), "wide");
  EXPECT_EQ(grown.at("generation").at("rows"), 64);
  EXPECT_EQ(grown.at("generation").at("frozen"), false);
  EXPECT_EQ(grown.at("experts"), 2 * 16 * 16 + 64 * 16);
  EXPECT_EQ(succeed(Args{"eval"} + at_store).at("accuracy"), learnt.at("accuracy"));

  const json::object frozen = succeed(Args{"freeze"} + at_store);
  EXPECT_EQ(frozen.at("generation").at("frozen"), true);
  EXPECT_EQ(frozen.at("generation").at("digest").as_string().size(), 32U);
  const json::object inspected = succeed(Args{"inspect"} + at_store);
  EXPECT_EQ(inspected.at("frozen_intact"), true);
  EXPECT_EQ(inspected.at("finished"), true);
  ASSERT_EQ(inspected.at("generations").as_array().size(), 3U);
  EXPECT_EQ(inspected.at("generations").as_array()[2], frozen.at("generation"));
  EXPECT_EQ(run(Args{"freeze"} + at_store).code, 1);  // none is open

  succeed(Args{"restore", "--to", "experience-1"} + at_store);
  const json::object earlier = succeed(Args{"eval"} + at_store);
  EXPECT_EQ(earlier.at("accuracy"), result.at("matrix").as_array()[1]);
  EXPECT_NE(earlier.at("accuracy"), learnt.at("accuracy"));
  EXPECT_EQ(succeed(Args{"inspect"} + at_store).at("finished"), false);
  expect_refused(Args{"grow"} + at_store, 2, {"not finished"});
  // Learning on from there ends where the first run did.
  const json::object relearnt = succeed(Args{"train", "--threads", "1"} + at_store);
  EXPECT_EQ(relearnt.at("state_digest"), result.at("state_digest"));
  EXPECT_EQ(relearnt.at("matrix"), result.at("matrix"));

  succeed(Args{"restore", "--to", "experience-2", "--name", "back"} + at_store);
  EXPECT_EQ(succeed(Args{"eval"} + at_store).at("accuracy"), learnt.at("accuracy"));
  EXPECT_EQ(commits("store").as_array().back().at("state_digest"), result.at("state_digest"));
}

TEST_F(LearningTest, TheLogShowsGenerationsAndAccuracy) {
  const json::object result = succeed(train("store"));
  succeed({"grow", "--store", path("store"), "--freeze"});
  const json::array listed = commits("store").as_array();
  const json::value grown = listed.back().at("note");
  EXPECT_EQ(grown.at("generations"), 3);
  EXPECT_FALSE(grown.as_object().contains("acc"));  // of the model before
  const auto of = [&](const char* snapshot) {
    for (const json::value& commit : listed) {
      if (commit.at("snapshot") == snapshot) return commit.at("note");
    }
    return json::value();
  };
  EXPECT_EQ(of("experience-1").at("acc"), result.at("matrix").at(1).at(0));
  EXPECT_EQ(of("experience-2").at("acc"), result.at("acc"));
  EXPECT_EQ(of("experience-2").at("generations"), 2);
  const std::string people = run({"log", "--store", path("store")}).out;
  for (const char* part : {"generations", "acc", "experience 2", "grow\n"}) {
    EXPECT_THAT(people, HasSubstr(part));
  }
}

TEST_F(LearningTest, ExportsAndImportsOnlyWhatIsWhole) {
  succeed(train("store"));
  const Args at_store = {"--store", path("store")};
  const json::object out =
      succeed(Args{"export", "--generation", "1", "--into", path("shard")} + at_store);
  expect_refused(Args{"export", "--into", path("shard")} + at_store, 2, {"exists already"});
  expect_refused(Args{"export", "--generation", "2", "--into", path("other")} + at_store, 2,
                 {"--generation is 2", "0 to 1"});
  EXPECT_FALSE(fs::exists(path("other")));
  const auto before = commits("store");
  std::string bytes = read_file(path("shard"));
  write_file(path("short"), bytes.substr(0, bytes.size() / 2));
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  write_file(path("bad"), bytes);
  expect_refused(Args{"import", "--file", path("bad")} + at_store, 3, {"shard", "bad"});
  expect_refused(Args{"import", "--file", path("short")} + at_store, 3, {"short"});
  expect_refused(Args{"import", "--file", path("none")} + at_store, 3, {"none"});
  EXPECT_EQ(commits("store"), before);
  const json::object in = succeed(Args{"import", "--file", path("shard")} + at_store);
  EXPECT_EQ(in.at("content_digest"), out.at("content_digest"));
  succeed(Args{"grow", "--freeze"} + at_store);
  expect_refused(Args{"export", "--generation", "3", "--into", path("other")} + at_store, 2,
                 {"generation 3 is open"});
}

TEST_F(LearningTest, APartOfAStoreIsNotTakenForTheWhole) {
  succeed(train("store"));
  const json::object learnt = succeed({"eval", "--store", path("store")});
  succeed({"reshard", "--from", path("store"), "--into", path("a") + "," + path("b")});
  for (const char* command : {"eval", "train", "grow", "freeze"}) {
    SCOPED_TRACE(command);
    expect_refused({command, "--store", path("b")}, 2, {"part 2 of 2", "reshard"});
  }
  EXPECT_EQ(succeed({"inspect", "--store", path("a")}).at("part"), true);
  EXPECT_EQ(succeed({"scrub", "--store", path("a")}).at("intact"), true);
  succeed({"reshard", "--from", path("a") + "," + path("b"), "--into", path("whole")});
  EXPECT_EQ(succeed({"eval", "--store", path("whole")}).at("accuracy"), learnt.at("accuracy"));
  // Its finished run has no folder here; train makes one and reports it again.
  EXPECT_EQ(succeed({"train", "--store", path("whole")}).at("finished"), true);
  EXPECT_TRUE(fs::exists(folder_ / "whole" / "runs" / "grow_freeze" / "summary.json"));
}

TEST_F(LearningTest, RefusesAnotherConfigurationAndAStoreInUse) {
  const json::object result = succeed(train("store"));
  const auto files = content("store");
  const json::value before = commits("store");
  const Args resume = {"train", "--store", path("store"), "--threads", "1"};
  expect_refused(resume + Args{"--lr", "0.5", "--heads", "2"}, 2,
                 {"train.lr: ", " stored, 5E-1 asked for", "model.heads: 4 stored, 2 asked for"});
  expect_refused(resume + Args{"--experiences", "3"}, 2, {"stream.experiences: 2 stored, 3"});
  EXPECT_EQ(content("store"), files);
  EXPECT_EQ(commits("store"), before);
  EXPECT_EQ(succeed(resume).at("state_digest"), result.at("state_digest"));
  {
    const auto held = storage::open_rocksdb_store(path("store"));
    ASSERT_TRUE(held.ok());
    for (const char* command : {"train", "grow", "freeze"}) {
      expect_refused({command, "--store", path("store")}, 1,
                     {path("store"), std::to_string(::getpid())});
    }
    // Who only reads is not in the way.
    for (const char* command : {"eval", "inspect", "scrub"}) {
      succeed({command, "--store", path("store")});
    }
  }
  // Another data set in the place of the one that was learnt.
  const Images other = make_images(kTrain, 3);
  write_file(folder_ / "data" / "train-images-idx3-ubyte",
             idx({kTrain, kSide, kSide}, other.pixels));
  expect_refused({"eval", "--store", path("store")}, 3, {"data set is not the one"});
  EXPECT_EQ(content("store"), files);
}

TEST_F(LearningTest, RefusesWrongDataAndCombinationsWithoutMakingAStore) {
  const auto refuse = [&](const Args& flags, int code, const Args& parts) {
    expect_refused(Args{"train", "--store", path("store"), "--dataset", path("data")} + flags, code,
                   parts);
    EXPECT_FALSE(fs::exists(folder_ / "store"));
  };
  refuse({"--model", "mlp"}, 2, {"grow_freeze", "mlp"});
  // Flags that this run would not look at.
  refuse({"--model", "mlp", "--strategy", "naive", "--heads", "8"}, 2, {"--heads", "peer"});
  refuse({"--hidden", "8"}, 2, {"--hidden", "mlp"});
  refuse({"--strategy", "naive", "--gate-seed", "3"}, 2, {"--gate-seed", "gate none"});
  refuse({"--width", "32"}, 2, {"isolated", "width 0, not 32"});
  refuse({"--strategy", "naive", "--gate", "analytic"}, 2, {"gate analytic"});
  refuse({"--routing", "shared", "--gate", "oracle"}, 2, {"gate oracle"});
  refuse({"--stream", "split", "--experiences", "2"}, 2, {"experiences is 2", "3 classes"});
  refuse({"--batch", "1"}, 2, {"batch is 1", "query_norm"});
  refuse({"--top-k", "2000"}, 2, {"top_k is 2000"});
  refuse({"--d-key", "7"}, 2, {"d_key is 7"});
  refuse({"--budget", "1"}, 2, {"budget of 1 bytes", "at least"});
  refuse({"--strategy", "grow-freeze"}, 2, {"did you mean 'grow_freeze'?"});
  refuse({"--bach", "3"}, 2, {"did you mean '--batch'?"});

  const fs::path images = folder_ / "data" / "train-images-idx3-ubyte";
  const fs::path labels = folder_ / "data" / "train-labels-idx1-ubyte";
  const std::string whole = read_file(images), names = read_file(labels);
  write_file(images, whole.substr(0, whole.size() - 7));
  refuse({}, 3, {images.string(), "600 x 8 x 8"});
  write_file(images, whole.substr(0, 9));
  refuse({}, 3, {images.string(), "truncated"});
  write_file(images, names);
  refuse({}, 3, {images.string(), "labels"});
  write_file(images, whole);
  write_file(labels, idx({kTrain - 1}, names.substr(9)));
  refuse({}, 3, {labels.string(), "599 labels", "600 images"});
  fs::remove(labels);
  refuse({}, 3, {"train-labels-idx1-ubyte"});
}

// Two strategies, two seeds each, in processes of their own; killed on the way and started again.
TEST_F(LearningTest, BenchGoesOnAfterAKill) {
  const Args bench = {"bench",        "continual",    "--protocol", "rotated",
                      "--dataset",    path("data"),   "--seeds",    "2",
                      "--strategies", "naive,er-500", "--limit",    "200",
                      "--out",        path("bench"),  "--jobs",     "2"};
  const pid_t child = start(bench);
  const fs::path first = folder_ / "bench/runs/naive/1";
  for (int i = 0; i < 2000 && !fs::exists(first / "store"); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  ::kill(child, SIGKILL);
  EXPECT_EQ(finish(child).code, 1000 + SIGKILL);

  const json::object result = succeed(bench);
  EXPECT_TRUE(result.at("finished").as_bool());
  const json::array& rows = result.at("rows").as_array();
  ASSERT_EQ(rows.size(), 2u);
  for (const json::value& row : rows) {
    EXPECT_EQ(row.at("seeds"), 2);
    EXPECT_GT(row.at("acc").as_double(), 0.3);
    EXPECT_TRUE(row.at("bwt.gem").is_double());
    EXPECT_GT(row.at("seconds").as_double(), 0);
  }
  for (const char* name : {"results.md", "results.csv", "report.html"}) {
    EXPECT_TRUE(fs::exists(folder_ / "bench" / name)) << name;
  }
  EXPECT_FALSE(fs::exists(first / "store")) << "kept without being asked";

  // Each run is what train makes of its settings.
  const json::object alone = succeed({"train", "--store", path("alone"), "--config",
                                      (first / "config.json").string(), "--threads", "1"});
  const json::value summary = json::parse(read_file(first / "summary.json"));
  EXPECT_EQ(summary.at("state_digest"), alone.at("state_digest"));

  // Nothing is run twice; other settings need another folder.
  EXPECT_EQ(succeed(bench).at("rows"), result.at("rows"));
  expect_refused(bench + Args{"--test-limit", "20"}, 2, {"other settings", "test_limit"});
}

TEST_F(LearningTest, BenchRefusesWhatItCannotRun) {
  const Args out = {"--out", path("bench")};
  expect_refused({"bench"}, 2, {"bench continual"});
  expect_refused(Args{"bench", "continual", "--protocol", "none"} + out, 2, {"none", "hsu18"});
  expect_refused(
      Args{"bench", "continual", "--protocol", "rotated", "--strategies", "naive,moon"} + out, 2,
      {"moon", "grow_freeze"});
  expect_refused(Args{"bench", "continual", "--protocol", "hsu18", "--scenario", "x"} + out, 2,
                 {"'x'", "domain"});
  expect_refused(
      Args{"bench", "continual", "--protocol", "rotated", "--dataset", path("gone")} + out, 3,
      {"gone"});
  EXPECT_FALSE(fs::exists(folder_ / "bench"));
}

}  // namespace
}  // namespace perennial::cli
