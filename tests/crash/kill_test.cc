// SPDX-License-Identifier: Apache-2.0
// Kills a writing process at random instants: the store opens at the last acknowledged commit, or
// at the one in flight, whole; never between, with nothing lost.
//
// PERENNIAL_KILL_CYCLES sets the number of kills (default 240); PERENNIAL_KILL_SEED the seed.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <new>
#include <random>
#include <thread>

#include "kill_steps.h"
#include "perennial/storage/rocksdb_store.h"
#include "rocksdb_store_internal.h"

namespace perennial::storage::testing {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kPhases = 5;
constexpr std::array<const char*, kPhases> kPhaseNames = {"idle", "build", "sync", "ingest",
                                                          "recover"};

std::uint64_t setting(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// One writer process: started, killed at a chosen phase, and what it had acknowledged.
class Writer {
 public:
  explicit Writer(const std::filesystem::path& folder) {
    shared_ = ::memfd_create("kill_writer_state", 0);
    if (shared_ < 0 || ::ftruncate(shared_, sizeof(WriterState)) != 0) std::abort();
    void* memory =
        ::mmap(nullptr, sizeof(WriterState), PROT_READ | PROT_WRITE, MAP_SHARED, shared_, 0);
    if (memory == MAP_FAILED) std::abort();
    state_ = new (memory) WriterState;
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) std::abort();
    acknowledgements_ = ends[0];
    const std::string shared = std::to_string(shared_);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(ends[1], STDOUT_FILENO);
      ::execl(PERENNIAL_KILL_WRITER, PERENNIAL_KILL_WRITER, folder.c_str(), shared.c_str(),
              nullptr);
      ::_exit(127);
    }
    ::close(ends[1]);
  }
  ~Writer() {
    ::munmap(static_cast<void*>(state_), sizeof(WriterState));
    ::close(shared_);
    ::close(acknowledgements_);
  }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  // Waits until `phase` has been entered `times` times, then `delay`, then kills. The phase it died
  // in; -1 if it ended by itself.
  int kill_in(int phase, std::uint64_t times, std::chrono::microseconds delay) {
    const auto deadline = Clock::now() + std::chrono::seconds(20);
    while (state_->entered[phase] < times && Clock::now() < deadline) {
      int status = 0;
      if (::waitpid(pid_, &status, WNOHANG) == pid_) return -1;
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
    if (delay.count() > 0) std::this_thread::sleep_for(delay);
    ::kill(pid_, SIGKILL);
    int status = 0;
    ::waitpid(pid_, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? state_->phase.load() : -1;
  }

  // The last commit it acknowledged before it died; 0 if none.
  std::uint64_t last_acknowledged() const {
    std::uint64_t last = 0;
    std::uint64_t commit = 0;
    while (::read(acknowledgements_, &commit, sizeof(commit)) == sizeof(commit)) last = commit;
    return last;
  }

 private:
  int shared_ = -1;
  int acknowledgements_ = -1;
  pid_t pid_ = -1;
  WriterState* state_ = nullptr;
};

// Models of the last commits, newest last: enough for the restores of kill_steps.h.
class Oracle {
 public:
  Oracle() : models_(1) {}
  std::uint64_t commit() const { return commit_; }
  const Model& model() const { return models_.back(); }
  void advance() {
    ++commit_;
    if (const std::uint64_t source = restore_source(commit_); source != 0) {
      models_.push_back(models_[models_.size() - (commit_ - source)]);
    } else {
      models_.push_back(models_.back());
      Change change(models_.back());
      make_step(commit_, change);
    }
    if (models_.size() > 16) models_.pop_front();
  }

 private:
  std::uint64_t commit_ = 0;
  std::deque<Model> models_;
};

TEST(Kill, NothingAcknowledgedIsLostAndNothingIsHalf) {
  const std::uint64_t cycles = setting("PERENNIAL_KILL_CYCLES", 240);
  const std::uint64_t seed = setting("PERENNIAL_KILL_SEED", 20240407);
  constexpr std::uint64_t kCyclesPerStore = 40;
  std::mt19937_64 random(seed);
  std::array<std::uint64_t, kPhases> killed_in{};
  std::uint64_t in_flight_kept = 0;
  std::uint64_t acknowledged = 0;
  std::unique_ptr<TempFolder> folder;
  Oracle oracle;
  for (std::uint64_t cycle = 0; cycle < cycles; ++cycle) {
    if (cycle % kCyclesPerStore == 0) {
      folder = std::make_unique<TempFolder>();
      oracle = Oracle();
    }
    const std::filesystem::path path = folder->path() / "store";
    // Mostly inside a commit; now and then while opening or between commits.
    static constexpr std::array<Phase, 10> kAims = {
        Phase::build,  Phase::build,  Phase::sync,   Phase::sync,    Phase::ingest,
        Phase::ingest, Phase::ingest, Phase::ingest, Phase::recover, Phase::idle};
    const Phase aim = kAims[random() % kAims.size()];
    const std::uint64_t times = aim == Phase::recover ? 1 : 1 + random() % 4;
    const std::uint64_t longest = aim == Phase::build ? 300 : 4000;  // building takes about that
    const std::chrono::microseconds delay(random() % 3 == 0 ? 0 : random() % longest);
    int died_in = 0;
    std::uint64_t last = 0;
    {
      Writer writer(path);
      died_in = writer.kill_in(static_cast<int>(aim), times, delay);
      last = writer.last_acknowledged();
    }
    ASSERT_GE(died_in, 0) << "the writer failed by itself in cycle " << cycle;
    ++killed_in[static_cast<std::size_t>(died_in)];

    const std::uint64_t before = oracle.commit();
    while (oracle.commit() < last) oracle.advance();
    acknowledged += oracle.commit() - before;
    auto store = open_rocksdb_store(path, {.mode = OpenMode::either, .full_table_every = 7});
    ASSERT_TRUE(store.ok()) << store.status().to_string() << " in cycle " << cycle;
    const auto head = (*store)->head();
    const std::uint64_t commit = head.ok() ? head->commit : 0;
    if (commit == oracle.commit() + 1) {
      ++in_flight_kept;
      oracle.advance();
    }
    ASSERT_EQ(commit, oracle.commit()) << "cycle " << cycle << ", seed " << seed;
    ASSERT_EQ(difference(**store, oracle.model()), "") << "cycle " << cycle << ", seed " << seed;
    if (cycle % 10 == 9) {
      const auto report = (*store)->verify();
      ASSERT_TRUE(report.ok());
      ASSERT_TRUE(report->damage.empty()) << report->damage[0].what;
      ASSERT_EQ(report->records, commit);
    }
  }
  for (int phase = 0; phase < kPhases; ++phase) {
    std::printf("killed in %-8s %llu\n", kPhaseNames[static_cast<std::size_t>(phase)],
                static_cast<unsigned long long>(killed_in[static_cast<std::size_t>(phase)]));
  }
  std::printf("acknowledged %llu, in flight and kept %llu\n",
              static_cast<unsigned long long>(acknowledged),
              static_cast<unsigned long long>(in_flight_kept));
  const std::uint64_t inside = killed_in[static_cast<int>(Phase::build)] +
                               killed_in[static_cast<int>(Phase::sync)] +
                               killed_in[static_cast<int>(Phase::ingest)];
  EXPECT_GE(3 * inside, cycles);
  EXPECT_GT(killed_in[static_cast<int>(Phase::build)], 0u);
  EXPECT_GT(killed_in[static_cast<int>(Phase::sync)], 0u);
  EXPECT_GT(killed_in[static_cast<int>(Phase::ingest)], 0u);
  EXPECT_GT(acknowledged, cycles / 2);
}

}  // namespace
}  // namespace perennial::storage::testing
