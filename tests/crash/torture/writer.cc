// SPDX-License-Identifier: Apache-2.0
// The writer process: starting, watching and killing it, and what it does.
#include "writer.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <new>
#include <thread>

#include "session.h"

namespace perennial::storage::testing {
namespace {

using Clock = std::chrono::steady_clock;

WriterState* map_state(int shared) {
  void* memory =
      ::mmap(nullptr, sizeof(WriterState), PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
  require(memory != MAP_FAILED, "mmap failed");
  return static_cast<WriterState*>(memory);
}

}  // namespace

Writer::Writer(const std::filesystem::path& store, const std::filesystem::path& past,
               std::uint64_t seed, bool acknowledge_early) {
  shared_ = ::memfd_create("torture_writer", 0);
  require(shared_ >= 0 && ::ftruncate(shared_, sizeof(WriterState)) == 0, "memfd_create failed");
  state_ = new (map_state(shared_)) WriterState;
  const std::string shared = std::to_string(shared_);
  const std::string text = std::to_string(seed);
  const char* const early = acknowledge_early ? "1" : "0";
  pid_ = ::fork();
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::execl("/proc/self/exe", "torture", "writer", store.c_str(), past.c_str(), shared.c_str(),
            text.c_str(), early, nullptr);
    ::_exit(127);
  }
}

Writer::~Writer() {
  kill();
  ::munmap(static_cast<void*>(state_), sizeof(WriterState));
  ::close(shared_);
}

bool Writer::running() {
  if (!ended_ && ::waitpid(pid_, &status_, WNOHANG) == pid_) ended_ = true;
  return !ended_;
}

template <class Done>
bool Writer::wait_until(Done done) {
  const auto deadline = Clock::now() + std::chrono::seconds(20);
  while (!done()) {
    if (Clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  return true;
}

bool Writer::wait_for(int phase, std::uint64_t times) {
  const auto& entered = state_->entered[static_cast<std::size_t>(phase)];
  return wait_until([&] { return entered >= times || !running(); });
}

bool Writer::wait_for_steps(std::uint64_t steps) {
  return wait_until([&] { return state_->acknowledged >= steps || !running(); });
}

int Writer::exit_code() {
  if (!wait_until([&] { return !running(); })) return -1;
  return WIFEXITED(status_) ? WEXITSTATUS(status_) : -1;
}

int Writer::kill() {
  if (!running()) return -1;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, &status_, 0);
  ended_ = true;
  return WIFSIGNALED(status_) && WTERMSIG(status_) == SIGKILL ? state_->phase.load() : -1;
}

void write_seeds(const std::filesystem::path& path, const std::vector<std::uint64_t>& seeds) {
  std::ofstream file(path, std::ios::trunc);
  for (const std::uint64_t seed : seeds) file << seed << '\n';
  require(file.flush().good(), path.string() + " could not be written");
}

// torture writer STORE PAST SHARED_DESCRIPTOR SEED ACKNOWLEDGE_EARLY
int run_writer(int argc, char** argv) {
  if (argc != 7) return 2;
  WriterState* const state = map_state(std::atoi(argv[4]));
  const std::uint64_t seed = std::strtoull(argv[5], nullptr, 10);
  const bool early = argv[6][0] == '1';
  StoreSeam seam;
  seam.on_phase = [state](Phase phase) {
    state->phase = static_cast<int>(phase);
    state->entered[static_cast<std::size_t>(phase)] += 1;
  };
  auto store =
      open_rocksdb_store_with(argv[2], {.mode = OpenMode::either, .full_table_every = 5}, seam);
  if (!store.ok()) {
    if (store.status().code() == StatusCode::busy) return kWriterFoundBusy;
    std::fprintf(stderr, "writer: %s\n", store.status().to_string().c_str());
    return 4;
  }
  Expected expected;
  std::ifstream past(argv[3]);
  for (std::uint64_t step = 0; past >> step;) draw_step(step, expected)->apply(expected);
  for (std::uint64_t i = 1;; ++i) {
    const std::unique_ptr<Step> step = draw_step(derive(seed, i), expected);
    if (early) state->acknowledged = i;
    if (const Status status = step->run(**store); !status.ok()) {
      std::fprintf(stderr, "writer: %s\n", status.to_string().c_str());
      return 5;
    }
    state->acknowledged = i;
    step->apply(expected);
  }
}

}  // namespace perennial::storage::testing
