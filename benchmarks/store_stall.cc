// SPDX-License-Identifier: Apache-2.0
// What a commit of 1,000 changed pages costs the thread that trains: the instant it stands still
// (the cache's epoch begins and the dense state, all of it changed, is copied), and the writes to
// pages that follow while the store's thread writes the commit.
//
// The thread writes one expert of a random page and then computes for 20 us, over and over; the
// pool is in memory. Beside it: the same thread with no commit in flight.
#include <ATen/ops/rand.h>
#include <time.h>

#include <chrono>
#include <random>

#include "cached_pages.h"
#include "perennial/core/dense_entries.h"

namespace perennial::bench {
namespace {

constexpr std::size_t kTile = kPageBytes / kExpertBytes;
constexpr double kComputing = 20e-6;
constexpr double kMilliseconds = 1e3;
constexpr double kMicroseconds = 1e6;

// Of the writes to pages, in microseconds.
struct Times {
  std::vector<double> wall;
  std::vector<double> processor;  // what of it the thread ran: without waiting for a processor
};

// Of each commit.
struct Stalls {
  std::vector<double> freeze;        // ms
  std::vector<double> epoch;         // ms, of these without the dense state
  std::vector<Times> during, quiet;  // while it was written, and as many writes without one
};

double processor_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// A quantile of each commit's writes.
std::vector<double> quantiles(const std::vector<Times>& commits, std::vector<double> Times::*which,
                              double share) {
  std::vector<double> values;
  for (const Times& times : commits) values.push_back(quantile(times.*which, share));
  return values;
}

class Training {
 public:
  explicit Training(const StoreRun& run)
      : pages_(run.size(4096, 256)),
        dirty_(run.size(1000, 32)),
        store_(open_store(run.folder / "stall")),
        // All of the pool, and room for what is copied while a commit needs the old bytes.
        cached_(kPageBytes, pages_, 2 * pages_, store_.get()) {
    for (std::size_t i = 0; i < pages_; ++i) write(i);
    clean();
  }

  // One commit of the changed pages with `dense` beside them; what it leaves changed is committed
  // afterwards.
  void commit(const at::Tensor& dense, Stalls& stalls) {
    for (std::size_t i = 0; i < dirty_; ++i) write(i * (pages_ / dirty_));
    const double start = now();
    storage::CommitRequest request;
    cached_.cache.begin_epoch(request);
    const double begun = now();
    dense_.offer(request).tensor("optimizer", dense);
    stalls.freeze.push_back(kMilliseconds * (now() - start));
    stalls.epoch.push_back(kMilliseconds * (begun - start));
    auto done = store_->commit_async(std::move(request));
    Times times;
    while (done.wait_for(std::chrono::seconds(0)) != std::future_status::ready) timed_write(times);
    (void)must(done.get());
    cached_.cache.end_epoch(true);
    dense_.committed();
    Times quiet;
    for (std::size_t i = 0; i < times.wall.size(); ++i) timed_write(quiet);
    stalls.during.push_back(std::move(times));
    stalls.quiet.push_back(std::move(quiet));
    clean();
  }

 private:
  void write(std::size_t page) {
    const std::uint64_t key = cached_page(page);
    const std::size_t expert = random_() % kTile;
    const std::uint64_t touched = std::uint64_t{1} << expert;
    (void)must(cached_.cache.pin(
        {.pages = {&key, 1}, .use = PinUse::write, .experts = {&touched, 1}}, pin_));
    float* record = cached_.frame(page) + expert * kExpertFloats;
    for (std::size_t i = 0; i < kExpertFloats; ++i) record[i] += 1.0F;
    pin_.release();
  }
  void timed_write(Times& times) {
    const std::size_t page = random_() % pages_;
    const double processor = processor_seconds();
    const double start = now();
    write(page);
    const double end = now();
    times.processor.push_back(kMicroseconds * (processor_seconds() - processor));
    times.wall.push_back(kMicroseconds * (end - start));
    while (now() < end + kComputing) {
    }
  }
  // Afterwards no page is changed, and one state is left.
  void clean() {
    storage::CommitRequest request;
    request.retention = storage::Retention{.keep_last = 1};
    cached_.cache.begin_epoch(request);
    must(store_->commit(request));
    cached_.cache.end_epoch(true);
    (void)must(store_->reclaim({}));
  }

  std::size_t pages_;
  std::size_t dirty_;
  std::unique_ptr<storage::PageStore> store_;
  CachedPages cached_;
  DenseEntries dense_;
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
    at::Tensor dense = at::rand({static_cast<std::int64_t>(megabytes) << 18});
    for (std::size_t i = 0; i < run.repetitions(judged ? 11 : 3); ++i) {
      dense.add_(1.0F);
      training->commit(dense, stalls);
    }
    const std::string name =
        "commit of 1,000 pages and " + std::to_string(megabytes) + " MB beside training, ";
    Row standstill = limit_row(name + "standstill", "ms", stalls.freeze, 1.0);
    if (!judged) standstill.target.reset();
    run.rows.push_back(std::move(standstill));
    if (!judged) continue;
    run.rows.push_back(
        less_row(name + "standstill without the dense state", "ms", stalls.epoch, {1.0}));
    const std::string page = name + "page write, ";
    run.rows.push_back(
        limit_row(page + "p99.9", "us", quantiles(stalls.during, &Times::wall, 0.999), 30.0));
    const auto row = [&](const std::string& what, std::vector<double> Times::*which, double share) {
      run.rows.push_back(less_row(page + what + "; beside none in flight", "us",
                                  quantiles(stalls.during, which, share),
                                  quantiles(stalls.quiet, which, share)));
    };
    row("median", &Times::wall, 0.5);
    row("p99", &Times::wall, 0.99);
    row("p99.9", &Times::wall, 0.999);
    row("slowest", &Times::wall, 1.0);
    row("p99.9 of processor time", &Times::processor, 0.999);
    row("slowest of processor time", &Times::processor, 1.0);
  }
  training.reset();
  std::filesystem::remove_all(run.folder / "stall");
}

}  // namespace perennial::bench
