// SPDX-License-Identifier: Apache-2.0
// Programs that are started, killed and started again, and what they leave.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace perennial::resume_testing {

class Process {
 public:
  Process(const std::vector<std::string>& args, const std::filesystem::path& output) {
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

inline std::string read(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Events of one name in the run's record so far.
inline int count_events(const std::filesystem::path& events, const std::string& name) {
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

inline Outcome outcome(const std::filesystem::path& output) {
  std::string text = read(output);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  const boost::json::object object =
      boost::json::parse(text.substr(text.rfind('\n') + 1)).as_object();
  EXPECT_TRUE(object.at("finished").as_bool());
  return {boost::json::serialize(object.at("matrix")),
          std::string(object.at("state_digest").as_string()),
          boost::json::serialize(object.at("gate_accuracy"))};
}

class Folder {
 public:
  Folder() {
    std::string name =
        (std::filesystem::temp_directory_path() / "perennial-resume-XXXXXX").string();
    path = mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::filesystem::path path;
};

}  // namespace perennial::resume_testing
