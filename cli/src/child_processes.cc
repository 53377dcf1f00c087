// SPDX-License-Identifier: Apache-2.0
#include "child_processes.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <map>
#include <thread>

#include "perennial/core/error.h"

namespace perennial::cli {
namespace {

constexpr int kNotStarted = 127;

pid_t start(const ChildTask& task) {
  std::vector<std::string> words{"perennial"};
  words.insert(words.end(), task.args.begin(), task.args.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const int log = open(task.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (log < 0) throw Error(task.log.string() + ": " + std::strerror(errno));
  const pid_t parent = getpid();
  // A signal that comes before exec would go to this process's handler in the child and be lost: it
  // waits until the child has none.
  sigset_t stops, before;
  sigemptyset(&stops);
  sigaddset(&stops, SIGINT);
  sigaddset(&stops, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &stops, &before);
  const pid_t child = fork();
  if (child == 0) {  // only what may be called here, until exec
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    setpgid(0, 0);  // a terminal's Ctrl-C is for the parent, which passes it on
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(kNotStarted);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    execv("/proc/self/exe", argv.data());
    _exit(kNotStarted);
  }
  const int failed = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  close(log);
  if (child < 0) throw Error(std::string("a process cannot be started: ") + std::strerror(failed));
  return child;
}

int exit_code(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

void run_children(const std::vector<ChildTask>& tasks, std::size_t at_once,
                  const std::function<void(std::size_t, int)>& finished,
                  const std::function<void(const std::vector<std::size_t>&)>& tick,
                  const std::function<bool()>& stop) {
  std::map<std::size_t, pid_t> running;
  std::size_t next = 0;
  bool stopping = false;
  for (;;) {
    if (!stopping && stop()) {
      stopping = true;
      for (const auto& [task, child] : running) kill(child, SIGINT);
    }
    while (!stopping && next < tasks.size() && running.size() < at_once) {
      running[next] = start(tasks[next]);
      ++next;
    }
    if (running.empty()) return;
    for (auto at = running.begin(); at != running.end();) {
      int status = 0;
      const pid_t ended = waitpid(at->second, &status, WNOHANG);
      if (ended == 0) {
        ++at;
        continue;
      }
      finished(at->first, ended < 0 ? kNotStarted : exit_code(status));
      at = running.erase(at);
    }
    std::vector<std::size_t> now;
    for (const auto& [task, child] : running) now.push_back(task);
    tick(now);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

}  // namespace perennial::cli
