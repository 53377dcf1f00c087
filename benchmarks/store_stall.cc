// SPDX-License-Identifier: Apache-2.0
// What a commit of 1,000 changed pages costs the thread that trains: the instant it stands still
// (the cache's epoch begins and the dense state is copied), and the writes to pages that follow
// while the store's thread writes the commit.
//
// The thread writes one expert of a random page and then computes for 20 us, over and over; the
// pool is in memory. Beside it: the same thread with no commit in flight.
#include <chrono>
#include <random>

#include "cached_pages.h"

namespace perennial::bench {
namespace {

constexpr std::size_t kPageBytes = std::size_t{64} << 10;
constexpr std::size_t kTile = kPageBytes / kExpertBytes;
constexpr double kComputing = 20e-6;
constexpr double kMilliseconds = 1e3;
constexpr double kMicroseconds = 1e6;

struct Stalls {
  std::vector<double> freeze;                       // ms, a commit each
  std::vector<double> p50, p99, p999, worst;        // us, of the writes during a commit
  std::vector<double> q50, q99, q999, quiet_worst;  // the same without one
};

class Training {
 public:
  explicit Training(const StoreRun& run)
      : pages_(run.size(4096, 256)),
        dirty_(run.size(1000, 32)),
        store_(open_store(run.folder / "stall")),
        // All of the pool, and room for what is copied while a commit needs the old bytes.
        cached_(kPageBytes, pages_, 2 * pages_, store_.get()) {
    for (std::size_t i = 0; i < pages_; ++i) write(i);
    storage::CommitRequest request;
    request.retention = storage::Retention{.keep_last = 1};
    cached_.cache.begin_epoch(request);
    must(store_->commit(request));
    cached_.cache.end_epoch(true);
  }

  // One commit with `dense` beside its pages, and as many writes without one.
  void commit(const storage::Bytes& dense, Stalls& stalls) {
    for (std::size_t i = 0; i < dirty_; ++i) write(i * (pages_ / dirty_));
    const double start = now();
    storage::CommitRequest request;
    request.dense["optimizer"] = storage::Bytes(dense.begin(), dense.end());
    cached_.cache.begin_epoch(request);
    stalls.freeze.push_back(kMilliseconds * (now() - start));
    auto done = store_->commit_async(std::move(request));
    std::vector<double> times;
    while (done.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
      times.push_back(timed_write());
    }
    (void)must(done.get());
    cached_.cache.end_epoch(true);
    add(times, stalls.p50, stalls.p99, stalls.p999, stalls.worst);
    const std::size_t count = times.size();
    times.clear();
    for (std::size_t i = 0; i < count; ++i) times.push_back(timed_write());
    add(times, stalls.q50, stalls.q99, stalls.q999, stalls.quiet_worst);
  }

 private:
  void write(std::size_t page) {
    const std::uint64_t key = cached_page(page);
    const std::uint8_t expert = static_cast<std::uint8_t>(random_() % kTile);
    (void)must(cached_.cache.pin({&key, 1}, 1, PinUse::write, pin_, {&expert, 1}));
    float* record = cached_.frame(page) + expert * kExpertFloats;
    for (std::size_t i = 0; i < kExpertFloats; ++i) record[i] += 1.0F;
    pin_.release();
  }
  double timed_write() {
    const std::size_t page = random_() % pages_;
    const double start = now();
    write(page);
    const double end = now();
    while (now() < end + kComputing) {
    }
    return kMicroseconds * (end - start);
  }
  static void add(const std::vector<double>& times, std::vector<double>& p50,
                  std::vector<double>& p99, std::vector<double>& p999, std::vector<double>& worst) {
    p50.push_back(quantile(times, 0.5));
    p99.push_back(quantile(times, 0.99));
    p999.push_back(quantile(times, 0.999));
    worst.push_back(quantile(times, 1.0));
  }

  std::size_t pages_;
  std::size_t dirty_;
  std::unique_ptr<storage::PageStore> store_;
  CachedPages cached_;
  PinSet pin_;
  std::mt19937 random_{1};
};

}  // namespace

void bench_stall(StoreRun& run) {
  auto training = std::make_unique<Training>(run);
  for (const std::size_t megabytes : {4u, 8u, 64u, 256u}) {
    if (run.smoke && megabytes > 4) continue;
    const bool judged = megabytes == 4;
    Stalls stalls;
    for (std::size_t i = 0; i < run.repetitions(judged ? 11 : 3); ++i) {
      training->commit(random_bytes(megabytes << 20, i + megabytes), stalls);
    }
    const std::string name =
        "commit of 1,000 pages and " + std::to_string(megabytes) + " MB beside training, ";
    if (judged) {
      run.rows.push_back(limit_row(name + "standstill", "ms", stalls.freeze, 1.0));
    } else {
      run.rows.push_back(less_row(name + "standstill", "ms", stalls.freeze, {1.0}));
    }
    if (!judged) continue;
    const std::string page = name + "page write ";
    run.rows.push_back(limit_row(page + "p99.9", "us", stalls.p999, 30.0));
    run.rows.push_back(
        less_row(page + "p99.9; beside none in flight", "us", stalls.p999, stalls.q999));
    run.rows.push_back(less_row(page + "p99; beside none in flight", "us", stalls.p99, stalls.q99));
    run.rows.push_back(
        less_row(page + "median; beside none in flight", "us", stalls.p50, stalls.q50));
    run.rows.push_back(
        less_row(page + "slowest; beside none in flight", "us", stalls.worst, stalls.quiet_worst));
  }
  training.reset();
  std::filesystem::remove_all(run.folder / "stall");
}

}  // namespace perennial::bench
