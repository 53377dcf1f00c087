// SPDX-License-Identifier: Apache-2.0
// Runs the built program on a small data set of its own.
#pragma once

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

extern char** environ;

namespace perennial::cli {

namespace fs = std::filesystem;
namespace json = boost::json;
using ::testing::HasSubstr;

constexpr int kClasses = 3, kSide = 8, kPixels = kSide * kSide;
constexpr int kTrain = 600, kTest = 150;
constexpr int kPredicted = 20;  // rows given to predict

inline std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_file(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// An IDX file of bytes.
inline std::string idx(const std::vector<std::uint32_t>& shape, const std::string& bytes) {
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
inline Images make_images(int count, unsigned seed) {
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

inline std::string npy(const std::string& pixels, int rows) {
  std::string header = "{'descr': '|u1', 'fortran_order': False, 'shape': (" +
                       std::to_string(rows) + ", " + std::to_string(kPixels) + "), }";
  header += std::string(63 - (10 + header.size()) % 64, ' ') + '\n';
  const auto size = static_cast<unsigned>(header.size());
  return std::string("\x93NUMPY\x01\x00", 8) + static_cast<char>(size & 255) +
         static_cast<char>(size >> 8) + header + pixels;
}

inline std::string csv(const std::string& pixels, int rows) {
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

inline Args operator+(Args left, const Args& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

class LearningTest : public ::testing::Test {
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
    if (!from_.empty()) posix_spawn_file_actions_addchdir_np(&actions, from_.c_str());
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

  // What a run of strategy er has recorded.
  fs::path events(const std::string& store) const {
    return folder_ / store / "runs" / "er" / "events.jsonl";
  }
  // Kills a command of strategy er once its run has recorded something more.
  void kill_in(const Args& args, const std::string& store) const {
    const auto before = fs::exists(events(store)) ? fs::file_size(events(store)) : 0;
    const pid_t child = start(args);
    for (int wait = 0; wait < 5000; ++wait) {
      if (fs::exists(events(store)) && fs::file_size(events(store)) > before) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    ::kill(child, SIGKILL);
    const int code = finish(child).code;
    EXPECT_TRUE(code == 1000 + SIGKILL || code == 0) << code;
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
  fs::path from_;  // where the program is started; empty = where the test is
  Images test_;
};

// Every value is a fraction. Joint training has only the first and the last row.
inline void expect_matrix(const json::object& result, std::size_t experiences, bool joint = false) {
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

}  // namespace perennial::cli
