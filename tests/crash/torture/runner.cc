// SPDX-License-Identifier: Apache-2.0
// Runner: a session is forked, reports lines through a pipe, and is waited for.
#include "runner.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <sstream>

namespace perennial::storage::testing {
namespace fs = std::filesystem;
namespace {

// Longer than any session takes on a busy machine.
constexpr unsigned kSessionSeconds = 240;

void send(int pipe, const std::string& line) {
  if (::write(pipe, line.data(), line.size()) < 0) ::_exit(3);
}

[[noreturn]] void run_child(const KindOfTorture& kind, Session session, int pipe) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::alarm(kSessionSeconds);
  session.cycle_done = [pipe] { send(pipe, "cycle\n"); };
  session.count = [pipe](std::string_view what, int times) {
    send(pipe, "count " + std::to_string(times) + " " + std::string(what) + "\n");
  };
  int code = 0;
  try {
    kind.run(session);
  } catch (const std::exception& loss) {
    std::string text = loss.what();
    std::ranges::replace(text, '\n', ' ');
    send(pipe, "loss " + text + "\n");
    code = 1;
  }
  ::_exit(code);
}

}  // namespace

struct Runner::Child {
  pid_t pid = -1;
  int pipe = -1;
  std::uint64_t seed = 0;
  fs::path folder;
  std::string output;
};

void Runner::start(const KindOfTorture& kind, std::uint64_t cycles, std::uint64_t seed,
                   Mutant mutant, std::vector<Child>& children) {
  Child child;
  child.seed = seed;
  child.folder = folder_ / std::to_string(++sessions_);
  fs::create_directories(child.folder);
  int ends[2];
  require(::pipe2(ends, O_CLOEXEC) == 0, "pipe2 failed");
  std::fflush(nullptr);
  child.pid = ::fork();
  if (child.pid == 0) {
    Session session;
    session.seed = seed;
    session.cycles = cycles;
    session.mutant = mutant;
    session.folder = child.folder;
    run_child(kind, std::move(session), ends[1]);
  }
  ::close(ends[1]);
  child.pipe = ends[0];
  children.push_back(std::move(child));
}

// Reads until one child has ended, and takes it from the list.
void Runner::collect(std::vector<Child>& children, KindReport& report) {
  std::vector<pollfd> pipes;
  for (const Child& child : children) pipes.push_back({child.pipe, POLLIN, 0});
  auto ended = children.end();
  while (ended == children.end()) {
    ::poll(pipes.data(), pipes.size(), -1);
    for (std::size_t i = 0; i < pipes.size(); ++i) {
      if (pipes[i].revents == 0) continue;
      std::array<char, 4096> buffer{};
      const ssize_t bytes = ::read(children[i].pipe, buffer.data(), buffer.size());
      if (bytes > 0) {
        children[i].output.append(buffer.data(), static_cast<std::size_t>(bytes));
      } else {
        ended = children.begin() + static_cast<std::ptrdiff_t>(i);
      }
    }
  }
  Child child = std::move(*ended);
  children.erase(ended);
  ::close(child.pipe);
  int status = 0;
  ::waitpid(child.pid, &status, 0);
  std::uint64_t cycles = 0;
  std::string loss;
  std::istringstream lines(child.output);
  for (std::string line; std::getline(lines, line);) {
    if (line == "cycle") ++cycles;
    if (line.starts_with("loss ")) loss = line.substr(5);
    if (line.starts_with("count ")) {
      const std::size_t space = line.find(' ', 6);
      report.counts[line.substr(space + 1)] += std::stoull(line.substr(6, space - 6));
    }
  }
  if (WIFSIGNALED(status)) {
    loss = WTERMSIG(status) == SIGALRM
               ? std::string("it hung")
               : std::string("it crashed: ") + ::strsignal(WTERMSIG(status));
  } else if (loss.empty() && WEXITSTATUS(status) != 0) {
    loss = "it ended with exit code " + std::to_string(WEXITSTATUS(status));
  }
  if (!loss.empty()) report.failures.push_back({child.seed, cycles, loss});
  report.cycles += cycles + (loss.empty() ? 0 : 1);
  std::error_code ignored;
  fs::remove_all(child.folder, ignored);
}

void Runner::run(const KindOfTorture& kind, std::uint64_t cycles, std::uint64_t seed, Mutant mutant,
                 KindReport& report) {
  const std::size_t most = mutant == Mutant::none ? kMostFailures : 1;
  std::vector<Child> children;
  std::uint64_t given = 0;
  for (std::uint64_t i = 0;; ++i) {
    if (given >= cycles || report.failures.size() >= most) break;
    const std::uint64_t part = std::min(kind.cycles_per_store, cycles - given);
    given += part;
    start(kind, part, derive(seed, i), mutant, children);
    if (children.size() >= jobs_) collect(children, report);
  }
  while (!children.empty()) collect(children, report);
}

void Runner::run_one(const KindOfTorture& kind, std::uint64_t cycles, std::uint64_t seed,
                     Mutant mutant, KindReport& report) {
  std::vector<Child> children;
  start(kind, cycles, seed, mutant, children);
  collect(children, report);
}

}  // namespace perennial::storage::testing
