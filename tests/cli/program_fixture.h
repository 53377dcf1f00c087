// SPDX-License-Identifier: Apache-2.0
// Runs the built program in a folder of the test's own.
#pragma once

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "perennial/storage/rocksdb_store.h"

extern char** environ;

namespace perennial::cli {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

inline std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct Finished {
  int code = -1;
  std::string out;
  std::string err;

  boost::json::object json() const { return boost::json::parse(last_line()).as_object(); }
  std::string last_line() const {
    if (!out.ends_with('\n')) return "";
    const std::string lines = out.substr(0, out.size() - 1);
    return lines.substr(lines.rfind('\n') + 1);
  }
};

class ProgramTest : public ::testing::Test {
 protected:
  ProgramTest() {
    std::string name = (fs::temp_directory_path() / "perennial-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
    store_ = (folder_ / "store").string();
  }
  ~ProgramTest() override { fs::remove_all(folder_); }

  Finished run(const std::vector<std::string>& args) const {
    const std::string out = (folder_ / "out").string(), err = (folder_ / "err").string();
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    constexpr int kFlags = O_WRONLY | O_CREAT | O_TRUNC;
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out.c_str(), kFlags, 0600);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err.c_str(), kFlags, 0600);
    std::vector<std::string> words = {PERENNIAL_PROGRAM};
    words.insert(words.end(), args.begin(), args.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    pid_t child = 0;
    const int error =
        ::posix_spawn(&child, PERENNIAL_PROGRAM, &actions, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    Finished finished;
    if (error != 0) {
      ADD_FAILURE() << "cannot start " << PERENNIAL_PROGRAM;
      return finished;
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    finished.code = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    finished.out = read_file(out);
    finished.err = read_file(err);
    return finished;
  }

  // Runs `args` and expects a refusal: this exit code, nothing on standard output, and on standard
  // error "perennial: ..." with every one of `parts`, then at most one line more, a hint.
  void expect_refused(const std::vector<std::string>& args, int code,
                      const std::vector<std::string>& parts) const {
    const Finished finished = run(args);
    SCOPED_TRACE(finished.err);
    EXPECT_EQ(finished.code, code);
    EXPECT_EQ(finished.out, "");
    const std::size_t end = finished.err.find('\n');
    ASSERT_NE(end, std::string::npos);
    const std::string line = finished.err.substr(0, end), rest = finished.err.substr(end + 1);
    EXPECT_TRUE(line.starts_with("perennial: "));
    for (const std::string& part : parts) EXPECT_THAT(line, HasSubstr(part));
    if (!rest.empty()) {
      EXPECT_TRUE(rest.starts_with("hint: "));
      EXPECT_EQ(std::count(rest.begin(), rest.end(), '\n'), 1);
    }
  }

  // A store with two commits: entry "text" is "one", then "two".
  void make_store() const {
    auto store = storage::open_rocksdb_store(store_, {.mode = storage::OpenMode::create});
    ASSERT_TRUE(store.ok()) << store.status().message();
    for (const std::string text : {"one", "two"}) {
      storage::CommitRequest request;
      request.retention = storage::Retention::all();
      const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
      request.dense["text"] = storage::Bytes(bytes, bytes + text.size());
      request.note = R"({"action":"write","text":")" + text + "\"}";
      const auto info = store.value()->commit(request);
      ASSERT_TRUE(info.ok()) << info.status().message();
    }
  }

  // Every file of the store and its content.
  std::map<std::string, std::string> content(const fs::path& root) const {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(root)) {
      files[entry.path().string()] = entry.is_regular_file() ? read_file(entry.path()) : "";
    }
    return files;
  }

  fs::path folder_;
  std::string store_;
};

}  // namespace perennial::cli
